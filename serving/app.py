"""Wiring of the serving process. Long because it is one straight line from settings to an application.

Nothing here decides anything. What is opened is closed in reverse by one exit stack.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random

from sqlalchemy import Engine

from serving.announce import Announcer
from serving.api.access import Access
from serving.api.audit import audit_routes
from serving.api.crossing import crossing
from serving.api.edge import App, Edge
from serving.api.health import health_routes
from serving.api.keyring import AdminKeyFile, KeyMirror, Keyring
from serving.api.knowledge import Knowledge
from serving.api.models import ModelDetails, model_routes
from serving.api.rate import RateLimits
from serving.api.restore_points import restore_point_routes
from serving.api.rollback import rollback_routes
from serving.api.traffic import traffic_routes
from serving.api.updates import update_routes
from serving.api.webhook import Signature, secret_in, webhook_routes
from serving.candidate import Preparation
from serving.comparisons import Comparisons
from serving.core.clock import Clock, SystemClock
from serving.core.cpus import cpu_count
from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.ejection import Ejections
from serving.followed import FollowedModel, Visibility
from serving.follower import Follower
from serving.framework import framework_with
from serving.health import Health
from serving.heartbeat import Heartbeat, Identity
from serving.inference import Inference
from serving.ledger import Ledger
from serving.library import Library, standing_of
from serving.memory import Memory
from serving.notices import log_dropping
from serving.orders import Orders
from serving.overrides import Overrides
from serving.preload import Preloader
from serving.promotions import Promotions
from serving.protocol.backing import Backing
from serving.protocol.catalogue import Catalogue
from serving.protocol.endpoints import protocol_routes
from serving.protocol.infer import InferEndpoint
from serving.protocol.scoring import ScoringEndpoint, scoring_routes
from serving.readiness import Readiness
from serving.restoration import restore
from serving.retreat import Retreat
from serving.rollback import Rollbacks
from serving.rollback_book import RollbackBook
from serving.routes import Routes
from serving.scores import Scores
from serving.settings import ServingSettings
from serving.shadow import Shadow
from serving.shelf import Shelf
from serving.splits import Splits
from serving.store.artifacts import ArtifactCache
from serving.store.database import check, open_engine, upgrade
from serving.store.guard import Guard
from serving.store.inference_log import log_folder
from serving.store.journal import Journal
from serving.store.leases import Leases
from serving.store.orchestrator import connect_async as connect_to_prefect
from serving.store.outbox import Notice
from serving.store.overrides import OverrideFile
from serving.store.record import Record
from serving.store.registry import Registry, connect
from serving.store.rollback_file import RollbackFile
from serving.store.trail import Trail
from serving.telemetry.counters import Statistics
from serving.telemetry.inference_log import InferenceLog
from serving.telemetry.metrics import Metrics
from serving.telemetry.parts import Keeping, PartFolder
from serving.traffic import Traffic
from serving.write_back import WriteBack

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its application, and what another transport needs to offer the same.

    `readiness` has the switch that makes it not ready before it stops.
    """

    application: App
    backing: Backing
    readiness: Readiness


@asynccontextmanager
async def running(settings: ServingSettings, clock: Clock | None = None) -> AsyncIterator[Server]:
    """Everything a server needs, started; stopped again on exit.

    Raises `StoreUnusable` when local files or the store must not be used as they are.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        settings.serving_home.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_prepare_store, settings.database_url)
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        client = connect(settings)
        stack.callback(client.close)
        registry = Registry(client, settings.serves, settings.env)
        journal = Journal(settings.serving_home / "journal.jsonl")
        ledger = Ledger(engine, Trail(engine, journal, clock), clock)
        stack.callback(ledger.close)
        overrides = Overrides(OverrideFile(settings.serving_home / "overrides.json"), ledger, clock)
        cache = ArtifactCache(settings.cache_folder, client, registry, settings.cache_mb << 20)
        threads = settings.threads or cpu_count()
        preparation = Preparation(
            registry,
            cache,
            engine,
            clock,
            threads=threads,
            require_validation=settings.require_validation,
            batch_limits=settings.batch_limits,
        )
        models: dict[str, FollowedModel] = {}
        memory = Memory(settings.memory_limits, clock, partial(standing_of, models))
        library = Library(
            preparation,
            cache,
            memory,
            ledger,
            cache_folder=settings.cache_folder,
            candidate_timeout_seconds=settings.candidate_timeout_seconds,
            drain_seconds=settings.drain_seconds,
            concurrent_loads=settings.concurrent_loads,
        )
        memory.tell(library.note_evicted)
        stack.push_async_callback(library.close)
        metrics, statistics, routes = Metrics(), Statistics(clock), Routes()
        record = Record(settings.serving_home / "served.json")
        visibility = Visibility(models, record, routes, settings.cache_folder)
        guard = Guard(registry, engine, Leases(engine, clock))
        holder = f"serving:{socket.gethostname()}:{settings.port}:{os.getpid()}"
        write_back = WriteBack(guard, overrides, library, visibility, ledger, holder, clock)
        stack.push_async_callback(write_back.close)
        prefect = connect_to_prefect(settings)
        stack.push_async_callback(prefect.aclose)
        announcer = Announcer(prefect, ledger, clock)
        stack.push_async_callback(announcer.close)
        loop = asyncio.get_running_loop()

        def on_critical(notice: Notice) -> None:
            loop.call_soon_threadsafe(announcer.alert, notice)

        ledger.tell(on_critical)

        def after_turn(model: FollowedModel) -> None:
            splits.consider(model)
            write_back.consider(model)
            announcer.consider(model)
            shelf.consider(model)
            book.consider()

        follower = Follower(
            settings,
            models,
            registry,
            library,
            visibility,
            overrides,
            ledger,
            metrics,
            clock,
            after_turn,
        )
        stack.push_async_callback(follower.close)
        splits = Splits(follower.wanted, visibility, ledger, metrics, clock)
        stack.push_async_callback(splits.close)
        shelf = Shelf(models, settings.serves, registry, follower, library, visibility, ledger)
        book = RollbackBook(RollbackFile(settings.serving_home / "rollbacks.json"), ledger)
        stack.push_async_callback(book.close)
        rollbacks = Rollbacks(
            settings, models, library, visibility, overrides, ledger, metrics, clock, follower.wake, book
        )
        orders = Orders(prefect)
        retreat = Retreat(models, rollbacks, book, overrides, ledger, orders, clock)
        stack.push_async_callback(retreat.close)
        ejections = Ejections(library, visibility, overrides, ledger, metrics, clock, follower.wake)
        stack.push_async_callback(ejections.close)
        inference_log = _inference_log(settings, metrics, ledger, clock)
        inference_log.start()
        stack.push_async_callback(asyncio.to_thread, inference_log.close)
        comparisons = Comparisons(ledger, metrics, clock, holder)
        stack.push_async_callback(comparisons.close)
        shadow = Shadow(comparisons, metrics, clock, settings.copy_limits, Random())
        stack.push_async_callback(shadow.close)
        scores = Scores(models, rollbacks.judge, ejections.judge, metrics, clock)
        inference = Inference(routes, scores, shadow, metrics, inference_log, statistics, clock)
        health = Health(models, follower, inference, ledger, clock, settings.probe_seconds)
        readiness = Readiness(models, follower)
        visibility.tell(splits.note_restored)
        await restore(await asyncio.to_thread(record.read), models, library, overrides, visibility)
        visibility.tell(splits.note_changed)
        identity = Identity(holder, f"http://{settings.host}:{settings.port}", clock.now())
        heartbeat = Heartbeat(identity, models, health, ledger, clock)
        stack.push_async_callback(heartbeat.leave)
        keyring = Keyring(
            AdminKeyFile(settings.admin_key_file).digest, KeyMirror(settings.key_mirror_file), ledger
        )
        await keyring.refresh()
        preloader = Preloader(memory, partial(standing_of, models))
        loops = (follower, health, heartbeat, keyring, preloader, comparisons)
        await _background(stack, *(loop.run() for loop in loops))

        catalogue = Catalogue(routes, models, readiness, statistics)
        framework = framework_with(metrics)
        knowledge = Knowledge(registry, ledger, clock)
        for router in (
            protocol_routes(catalogue, shelf),
            scoring_routes(catalogue),
            health_routes(health),
            model_routes(ModelDetails(models, follower, splits, knowledge, health, metrics), models),
            rollback_routes(retreat),
            update_routes(Promotions(registry, ledger, orders, clock, settings.model_folder_paths), models),
            restore_point_routes(registry, ledger, settings, clock),
            traffic_routes(
                Traffic(models, registry, guard, overrides, splits, ledger, holder, follower.wake)
            ),
            audit_routes(ledger),
            webhook_routes(Signature(secret_in(settings.webhook_secret_file), clock), follower.wake),
        ):
            framework.include_router(router)
        access = Access(
            keyring,
            RateLimits(clock, settings.anonymous_requests_per_second),
            clock,
            is_loopback=settings.is_loopback,
            require_infer_key=settings.require_infer_key,
            hosts=settings.allowed_hosts,
        )
        backing = Backing(
            access,
            inference,
            catalogue,
            shelf,
            health.status_of,
            max_body_bytes=settings.max_body_mb << 20,
            timeout_seconds=settings.request_timeout_seconds,
        )
        endpoint = InferEndpoint(
            inference,
            health.status_of,
            max_body_bytes=backing.max_body_bytes,
            timeout_seconds=backing.timeout_seconds,
        )
        scoring = ScoringEndpoint(
            inference,
            routes.names,
            max_body_bytes=backing.max_body_bytes,
            timeout_seconds=backing.timeout_seconds,
        )
        edge = Edge(access, endpoint, scoring, framework)
        yield Server(crossing(edge, settings.cors_allowed), backing, readiness)


def _inference_log(settings: ServingSettings, metrics: Metrics, ledger: Ledger, clock: Clock) -> InferenceLog:
    chance = Random()
    parts = PartFolder(
        log_folder(settings.home),
        f"{socket.gethostname()}-{os.getpid()}",
        Keeping(settings.log_retention_days, settings.log_max_mb << 20),
        settings.log_privacy,
        raw_ratio=settings.log_raw_ratio,
        chance=chance,
    )
    return InferenceLog(
        parts,
        metrics,
        clock,
        sampling_ratio=settings.log_sampling_ratio,
        chance=chance,
        on_trouble=lambda model, reason: ledger.notify(log_dropping(model, reason)),
    )


def _prepare_store(url: str) -> None:
    """Bring the store to this version's schema. Raises `StoreUnusable` for one that is newer or damaged;
    one that is away is left alone, because inference does not need it (see `Ledger`).
    """
    engine = open_engine(url)
    try:
        _upgrade_if_older(engine, url)
    except StoreUnusable:
        raise
    except StoreUnavailable as error:
        log.warning("store_away reason=%s", error)
    finally:
        engine.dispose()


def _upgrade_if_older(engine: Engine, url: str) -> None:
    try:
        check(engine)
    except StoreUnusable:
        upgrade(url)
        check(engine)


async def _background(stack: AsyncExitStack, *loops: Awaitable[None]) -> None:
    async def stop(task: asyncio.Task[None]) -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    for loop in loops:
        stack.push_async_callback(stop, asyncio.ensure_future(loop))
