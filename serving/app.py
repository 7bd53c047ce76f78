"""Wiring of the serving process. Long because it is one straight line from settings to an application.

Nothing here decides anything. What is opened is closed in reverse by one exit stack.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

from sqlalchemy import Engine

from serving.accounts import Accounts
from serving.announce import Announcer
from serving.api.access import Access
from serving.api.audit import audit_routes
from serving.api.causes import error_routes
from serving.api.crossing import crossing
from serving.api.edge import App, Edge
from serving.api.feedback import feedback_routes
from serving.api.health import health_routes
from serving.api.intake import Intake
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
from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.ejection import Ejections
from serving.feedback import Feedback
from serving.fleet.channel import Channel, Told
from serving.fleet.lead import Lead
from serving.fleet.member import Member
from serving.fleet.siblings import Siblings, socket_name
from serving.fleet.unison import Unison
from serving.followed import FollowedModel
from serving.follower import Follower
from serving.framework import framework_with
from serving.gauges import Gauges, evicted
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
from serving.promptness import Watchdog
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
from serving.store.feedback import FeedbackJournal
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
from serving.telemetry.joiner import Joiner
from serving.telemetry.label_parts import LabelPartFolder
from serving.telemetry.machine import Machine
from serving.telemetry.metrics import Metrics
from serving.telemetry.occupancy import Occupancy
from serving.telemetry.parts import Keeping, PartFolder
from serving.telemetry.recorder import Recorder
from serving.telemetry.swaps import SwapTimes
from serving.telemetry.version_facts import VersionFacts
from serving.telemetry.writer import TelemetryWriter
from serving.traffic import Traffic
from serving.visibility import Visibility
from serving.write_back import WriteBack

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its application, and what another transport needs to offer the same.

    `readiness` has the switch that makes it not ready before it stops. `channel` is where one of several
    workers is asked.
    """

    application: App
    backing: Backing
    readiness: Readiness
    channel: Channel | None


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
        ledger = Ledger(engine, Trail(engine, journal, clock), clock, settings.worker_slot or None)
        stack.callback(ledger.close)
        overrides = Overrides(OverrideFile(settings.serving_home / "overrides.json"), ledger, clock)
        cache = ArtifactCache(settings.cache_folder, client, registry, settings.cache_mb << 20)
        own_socket = _own_socket(settings)
        siblings = Siblings(own_socket, settings.workers - 1)
        lead = Lead(settings.serving_home / "lead.lock" if settings.is_fleet else None)
        stack.callback(lead.close)
        watchdog = Watchdog()
        stack.callback(watchdog.close)
        preparation = Preparation(
            registry,
            cache,
            engine,
            clock,
            threads=settings.session_threads,
            require_validation=settings.require_validation,
            batch_limits=settings.batch_limits,
            watchdog=watchdog,
        )
        models: dict[str, FollowedModel] = {}
        metrics = Metrics()
        memory = Memory(settings.memory_limits, clock, partial(standing_of, models))
        library = Library(
            preparation,
            cache,
            memory,
            ledger,
            cache_folder=settings.cache_folder,
            candidate_timeout_seconds=settings.candidate_timeout_seconds,
            drain_seconds=settings.drain_seconds,
            concurrent_loads=settings.load_slots,
            on_loaded=metrics.load_seconds.observe,
        )
        memory.tell(evicted(metrics, library.note_evicted))
        stack.push_async_callback(library.close)
        statistics, routes = Statistics(clock), Routes()
        metrics.registry.register(Occupancy(library.loaded))
        record = Record(settings.serving_home / "served.json")
        visibility = Visibility(models, record, routes, settings.cache_folder, is_shared=settings.is_fleet)
        guard = Guard(registry, engine, Leases(engine, clock))
        holder = f"serving:{socket.gethostname()}:{settings.port}:{os.getpid()}"
        write_back = WriteBack(guard, overrides, library, visibility, ledger, holder, clock, lead.is_mine)
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
            swap_times.note(model)

        swap_times = SwapTimes(metrics, clock)
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
        shelf = Shelf(
            models,
            settings.serves,
            registry,
            follower,
            library,
            visibility,
            ledger,
            partial(siblings.problems, seconds=settings.candidate_timeout_seconds),
        )
        unison = Unison(siblings, models, overrides, record, library, follower, shelf)
        stack.push_async_callback(unison.close)
        book = RollbackBook(RollbackFile(settings.serving_home / "rollbacks.json"), ledger)
        stack.push_async_callback(book.close)
        rollbacks = Rollbacks(
            settings,
            models,
            library,
            visibility,
            overrides,
            ledger,
            metrics,
            clock,
            follower.wake,
            unison.spread,
            book,
        )
        orders = Orders(prefect)
        retreat = Retreat(models, rollbacks, book, overrides, ledger, orders, clock)
        stack.push_async_callback(retreat.close)
        ejections = Ejections(
            library, visibility, overrides, ledger, metrics, clock, follower.wake, unison.spread
        )
        stack.push_async_callback(ejections.close)
        inference_log = _inference_log(settings, metrics, ledger, clock)
        inference_log.start()
        stack.push_async_callback(asyncio.to_thread, inference_log.close)
        recorder = Recorder(metrics, clock, worker=holder, is_on=settings.telemetry)
        recorder.tell(swap_times.look)
        writer = TelemetryWriter(recorder, engine, Machine(), metrics, clock, holder, settings.telemetry_kept)
        if settings.telemetry:
            writer.start()
        stack.push_async_callback(asyncio.to_thread, writer.close)
        comparisons = Comparisons(ledger, metrics, clock, holder)
        stack.push_async_callback(comparisons.close)
        accounts = Accounts(recorder, inference_log, statistics, clock)
        shadow = Shadow(comparisons, accounts, metrics, clock, settings.copy_limits, Random())
        stack.push_async_callback(shadow.close)
        scores = Scores(models, rollbacks.judge, ejections.judge, recorder, clock)
        inference = Inference(routes, scores, shadow, recorder, accounts, clock)
        health = Health(models, follower, inference, ledger, clock, settings.probe_seconds)
        readiness = Readiness(models, follower, siblings.waiting_for)
        visibility.tell(splits.note_restored)
        await restore(await asyncio.to_thread(record.read), models, library, overrides, visibility)
        visibility.tell(splits.note_changed)
        identity = Identity(holder, settings.url, clock.now())
        heartbeat = Heartbeat(identity, models, health, ledger, clock)
        stack.push_async_callback(heartbeat.leave)
        keyring = Keyring(
            AdminKeyFile(settings.admin_key_file).digest, KeyMirror(settings.key_mirror_file), ledger
        )
        await keyring.refresh()
        preloader = Preloader(memory, partial(standing_of, models))
        loops = (
            follower,
            health,
            heartbeat,
            keyring,
            preloader,
            comparisons,
            siblings,
            unison,
        )
        journal_of_labels = FeedbackJournal(settings.serving_home)
        feedback = Feedback(journal_of_labels)
        stack.push_async_callback(feedback.close)
        joiner = _joiner(settings, journal_of_labels, engine, models, metrics, clock)
        joiner.start()
        stack.push_async_callback(asyncio.to_thread, joiner.close)
        await _background(stack, *(loop.run() for loop in loops))

        async def counts() -> list[Told]:
            return await siblings.ask("counts")

        async def spread_delivery(delivery: str) -> None:
            await siblings.ask("wake", delivery=delivery)

        signature = Signature(secret_in(settings.webhook_secret_file), clock)
        channel = Channel(own_socket) if own_socket is not None else None
        if channel is not None:
            Member(
                library,
                memory,
                follower,
                health,
                readiness,
                shelf,
                unison,
                signature,
                statistics,
                metrics,
            ).answer_on(channel)
            await channel.open()
            stack.push_async_callback(channel.close)
        metrics.ask_before_scrape(Gauges(metrics, memory, follower, clock).look)
        catalogue = Catalogue(routes, models, readiness, statistics, counts)
        framework = framework_with(metrics, siblings.metrics)
        knowledge = Knowledge(registry, ledger, clock)
        for router in (
            protocol_routes(catalogue, shelf),
            scoring_routes(catalogue),
            health_routes(health, siblings.reports),
            model_routes(ModelDetails(models, follower, splits, knowledge, health, metrics, counts), models),
            rollback_routes(retreat),
            update_routes(Promotions(registry, ledger, orders, clock, settings.model_folder_paths), models),
            restore_point_routes(registry, ledger, settings, clock),
            traffic_routes(
                Traffic(models, registry, guard, overrides, splits, ledger, holder, clock, unison.wake)
            ),
            audit_routes(ledger),
            error_routes(ledger),
            feedback_routes(feedback, clock),
            webhook_routes(signature, follower.wake, spread_delivery),
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
        intake = Intake(settings.max_inflight_mb << 20)
        backing = Backing(
            access,
            intake,
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
        edge = Edge(access, intake, endpoint, scoring, framework)
        yield Server(crossing(edge, settings.cors_allowed), backing, readiness, channel)


def _own_socket(settings: ServingSettings) -> Path | None:
    """Where one of several workers is asked; a server of one worker is asked over HTTP only."""
    if settings.worker_folder is None:
        return None
    return settings.worker_folder / socket_name(settings.worker_slot, os.getpid())


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


def _joiner(
    settings: ServingSettings,
    journal: FeedbackJournal,
    engine: Engine,
    models: Mapping[str, FollowedModel],
    metrics: Metrics,
    clock: Clock,
) -> Joiner:
    folder, kept = log_folder(settings.home), timedelta(days=settings.log_retention_days)
    label_parts = LabelPartFolder(folder, f"{socket.gethostname()}-{os.getpid()}", clock, kept)
    known = VersionFacts(engine, models, clock)
    return Joiner(folder, journal, engine, label_parts, known.of, metrics, clock, kept)


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
