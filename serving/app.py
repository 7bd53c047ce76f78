"""Wiring of the serving process. Long because it is the whole of it: settings to application, group by group.

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

import httpx
from fastapi import APIRouter, FastAPI
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
from serving.fleet.channel import Channel
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


@dataclass(frozen=True, slots=True)
class _Ground:
    """What everything stands on: disk, store, registry, orchestrator, and the other workers."""

    settings: ServingSettings
    clock: Clock
    stack: AsyncExitStack
    engine: Engine
    client: httpx.Client
    registry: Registry
    ledger: Ledger
    overrides: Overrides
    prefect: httpx.AsyncClient
    own_socket: Path | None
    siblings: Siblings
    rates: RateLimits
    lead: Lead
    holder: str


@dataclass(frozen=True, slots=True)
class _Versions:
    """The versions in memory, and the models they are served for."""

    models: dict[str, FollowedModel]
    metrics: Metrics
    statistics: Statistics
    memory: Memory
    library: Library
    routes: Routes
    record: Record
    visibility: Visibility


@dataclass(frozen=True, slots=True)
class _Changes:
    """Who changes what is served: the follower, and the ways back."""

    guard: Guard
    swap_times: SwapTimes
    follower: Follower
    splits: Splits
    shelf: Shelf
    unison: Unison
    orders: Orders
    rollbacks: Rollbacks
    retreat: Retreat
    ejections: Ejections


@dataclass(frozen=True, slots=True)
class _Answering:
    """What a request meets, and what watches the answers."""

    inference: Inference
    comparisons: Comparisons
    health: Health
    readiness: Readiness


@asynccontextmanager
async def running(settings: ServingSettings, clock: Clock | None = None) -> AsyncIterator[Server]:
    """Everything a server needs, started; stopped again on exit.

    Raises `StoreUnusable` when local files or the store must not be used as they are.
    """
    async with AsyncExitStack() as stack:
        settings.serving_home.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_prepare_store, settings.database_url)
        ground = _ground(settings, clock or SystemClock(), stack)
        versions = _versions(ground)
        changes = _changes(ground, versions)
        answering = _answering(ground, versions, changes)
        await _restore(ground, versions, changes)
        keyring = Keyring(
            AdminKeyFile(settings.admin_key_file).digest, KeyMirror(settings.key_mirror_file), ground.ledger
        )
        await keyring.refresh()
        feedback = _feedback(ground, versions)
        heartbeat = _heartbeat(ground, versions, answering)
        await heartbeat.appear()
        await _background(stack, *_loops(ground, versions, changes, answering, keyring, heartbeat))
        signature = Signature(secret_in(settings.webhook_secret_file), ground.clock)
        channel = await _channel(ground, versions, changes, answering, signature)
        versions.metrics.ask_before_scrape(
            Gauges(versions.metrics, versions.memory, changes.follower, ground.clock).look
        )
        catalogue = _catalogue(ground, versions, answering)
        framework = framework_with(versions.metrics, ground.siblings.metrics)
        for router in _routers(ground, versions, changes, answering, catalogue, feedback, signature):
            framework.include_router(router)
        backing = _backing(ground, changes, answering, catalogue, keyring)
        edge = _edge(backing, versions.routes, framework)
        yield Server(crossing(edge, settings.cors_allowed), backing, answering.readiness, channel)


def _ground(settings: ServingSettings, clock: Clock, stack: AsyncExitStack) -> _Ground:
    engine = open_engine(settings.database_url)
    stack.callback(engine.dispose)
    client = connect(settings)
    stack.callback(client.close)
    prefect = connect_to_prefect(settings)
    stack.push_async_callback(prefect.aclose)
    journal = Journal(settings.serving_home / "journal.jsonl")
    ledger = Ledger(engine, Trail(engine, journal, clock), clock, settings.worker_slot or None)
    stack.callback(ledger.close)
    lead = Lead(settings.serving_home / "lead.lock" if settings.is_fleet else None)
    stack.callback(lead.close)
    own_socket = _own_socket(settings)
    siblings = Siblings(own_socket, settings.workers - 1)
    rates = RateLimits(clock, settings.anonymous_requests_per_second)
    siblings.tell(rates.heard)
    return _Ground(
        settings,
        clock,
        stack,
        engine,
        client,
        Registry(client, settings.serves, settings.env),
        ledger,
        Overrides(OverrideFile(settings.serving_home / "overrides.json"), ledger, clock),
        prefect,
        own_socket,
        siblings,
        rates,
        lead,
        holder=f"serving:{socket.gethostname()}:{settings.port}:{os.getpid()}",
    )


def _versions(ground: _Ground) -> _Versions:
    settings, clock, stack = ground.settings, ground.clock, ground.stack
    models: dict[str, FollowedModel] = {}
    metrics, routes = Metrics(), Routes()
    cache = ArtifactCache(settings.cache_folder, ground.client, ground.registry, settings.cache_mb << 20)
    watchdog = Watchdog()
    stack.callback(watchdog.close)
    preparation = Preparation(
        ground.registry,
        cache,
        ground.engine,
        clock,
        threads=settings.session_threads,
        require_validation=settings.require_validation,
        batch_limits=settings.batch_limits,
        watchdog=watchdog,
    )
    memory = Memory(settings.memory_limits, clock, partial(standing_of, models))
    library = Library(
        preparation,
        cache,
        memory,
        ground.ledger,
        cache_folder=settings.cache_folder,
        candidate_timeout_seconds=settings.candidate_timeout_seconds,
        drain_seconds=settings.drain_seconds,
        concurrent_loads=settings.load_slots,
        on_loaded=metrics.load_seconds.observe,
    )
    memory.tell(evicted(metrics, library.note_evicted))
    stack.push_async_callback(library.close)
    metrics.registry.register(Occupancy(library.loaded))
    record = Record(settings.serving_home / "served.json")
    visibility = Visibility(models, record, routes, settings.cache_folder, is_shared=settings.is_fleet)
    return _Versions(models, metrics, Statistics(clock), memory, library, routes, record, visibility)


def _changes(ground: _Ground, versions: _Versions) -> _Changes:
    settings, clock, stack = ground.settings, ground.clock, ground.stack
    ledger, overrides, registry = ground.ledger, ground.overrides, ground.registry
    models, library, metrics = versions.models, versions.library, versions.metrics
    visibility = versions.visibility
    guard = Guard(registry, ground.engine, Leases(ground.engine, clock))
    write_back = WriteBack(
        guard, overrides, library, visibility, ledger, ground.holder, clock, ground.lead.is_mine
    )
    stack.push_async_callback(write_back.close)
    announcer = _announcer(ground)
    swap_times = SwapTimes(metrics, clock)
    book = RollbackBook(RollbackFile(settings.serving_home / "rollbacks.json"), ledger)

    def after_turn(model: FollowedModel) -> None:
        splits.consider(model)
        write_back.consider(model)
        announcer.consider(model)
        shelf.consider(model)
        book.consider()
        swap_times.note(model)

    follower = Follower(
        settings, models, registry, library, visibility, overrides, ledger, metrics, clock, after_turn
    )
    stack.push_async_callback(follower.close)
    splits = Splits(follower.wanted, visibility, ledger, metrics, clock)
    stack.push_async_callback(splits.close)
    others = partial(ground.siblings.problems, seconds=settings.candidate_timeout_seconds)
    shelf = Shelf(models, settings.serves, registry, follower, library, visibility, ledger, others)
    unison = Unison(ground.siblings, models, overrides, versions.record, library, follower, shelf)
    stack.push_async_callback(unison.close)
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
    orders = Orders(ground.prefect)
    retreat = Retreat(models, rollbacks, book, overrides, ledger, orders, clock)
    stack.push_async_callback(retreat.close)
    ejections = Ejections(
        library, visibility, overrides, ledger, metrics, clock, follower.wake, unison.spread
    )
    stack.push_async_callback(ejections.close)
    return _Changes(guard, swap_times, follower, splits, shelf, unison, orders, rollbacks, retreat, ejections)


def _announcer(ground: _Ground) -> Announcer:
    announcer = Announcer(ground.prefect, ground.ledger, ground.clock)
    ground.stack.push_async_callback(announcer.close)
    loop = asyncio.get_running_loop()

    def on_critical(notice: Notice) -> None:
        loop.call_soon_threadsafe(announcer.alert, notice)

    ground.ledger.tell(on_critical)
    return announcer


def _answering(ground: _Ground, versions: _Versions, changes: _Changes) -> _Answering:
    settings, clock, ledger, stack = ground.settings, ground.clock, ground.ledger, ground.stack
    metrics = versions.metrics
    inference_log = _inference_log(settings, metrics, ledger, clock)
    inference_log.start()
    stack.push_async_callback(asyncio.to_thread, inference_log.close)
    recorder = _recorder(ground, versions, changes.swap_times)
    comparisons = Comparisons(ledger, metrics, clock, ground.holder)
    stack.push_async_callback(comparisons.close)
    accounts = Accounts(recorder, inference_log, versions.statistics, clock)
    shadow = Shadow(comparisons, accounts, metrics, clock, settings.copy_limits, Random())
    stack.push_async_callback(shadow.close)
    scores = Scores(versions.models, changes.rollbacks.judge, changes.ejections.judge, recorder, clock)
    inference = Inference(versions.routes, scores, shadow, recorder, accounts, clock)
    health = Health(versions.models, changes.follower, inference, ledger, clock, settings.probe_seconds)
    readiness = Readiness(versions.models, changes.follower, ground.siblings.waiting_for)
    return _Answering(inference, comparisons, health, readiness)


def _recorder(ground: _Ground, versions: _Versions, swap_times: SwapTimes) -> Recorder:
    settings, clock, metrics = ground.settings, ground.clock, versions.metrics
    recorder = Recorder(metrics, clock, worker=ground.holder, is_on=settings.telemetry)
    recorder.tell(swap_times.look)
    writer = TelemetryWriter(
        recorder, ground.engine, Machine(), metrics, clock, ground.holder, settings.telemetry_kept
    )
    if settings.telemetry:
        writer.start()
    ground.stack.push_async_callback(asyncio.to_thread, writer.close)
    return recorder


async def _restore(ground: _Ground, versions: _Versions, changes: _Changes) -> None:
    """What was served last, from local files. Splits of it are old news, later ones are not."""
    visibility = versions.visibility
    visibility.tell(changes.splits.note_restored)
    served = await asyncio.to_thread(versions.record.read)
    await restore(served, versions.models, versions.library, ground.overrides, visibility)
    visibility.tell(changes.splits.note_changed)
    await changes.rollbacks.recover()


def _feedback(ground: _Ground, versions: _Versions) -> Feedback:
    settings, clock = ground.settings, ground.clock
    journal = FeedbackJournal(settings.serving_home)
    feedback = Feedback(journal)
    ground.stack.push_async_callback(feedback.close)
    joiner = _joiner(settings, journal, ground.engine, versions.models, versions.metrics, clock)
    joiner.start()
    ground.stack.push_async_callback(asyncio.to_thread, joiner.close)
    return feedback


def _heartbeat(ground: _Ground, versions: _Versions, answering: _Answering) -> Heartbeat:
    identity = Identity(ground.holder, ground.settings.url, ground.clock.now())
    heartbeat = Heartbeat(
        identity, versions.models, answering.health, answering.readiness, ground.ledger, ground.clock
    )
    ground.stack.push_async_callback(heartbeat.leave)
    return heartbeat


def _loops(
    ground: _Ground,
    versions: _Versions,
    changes: _Changes,
    answering: _Answering,
    keyring: Keyring,
    heartbeat: Heartbeat,
) -> list[Awaitable[None]]:
    preloader = Preloader(versions.memory, partial(standing_of, versions.models))
    return [
        changes.follower.run(),
        answering.health.run(),
        heartbeat.run(),
        keyring.run(),
        preloader.run(),
        answering.comparisons.run(),
        ground.siblings.run(),
        changes.unison.run(),
    ]


async def _channel(
    ground: _Ground, versions: _Versions, changes: _Changes, answering: _Answering, signature: Signature
) -> Channel | None:
    """Where siblings ask this worker; a server of one worker has none."""
    if ground.own_socket is None:
        return None
    channel = Channel(ground.own_socket)
    Member(
        versions.library,
        versions.memory,
        changes.follower,
        answering.health,
        answering.readiness,
        changes.shelf,
        changes.unison,
        signature,
        versions.statistics,
        versions.metrics,
        ground.rates,
    ).answer_on(channel)
    await channel.open()
    ground.stack.push_async_callback(channel.close)
    return channel


def _catalogue(ground: _Ground, versions: _Versions, answering: _Answering) -> Catalogue:
    counts = partial(ground.siblings.ask, "counts")
    return Catalogue(versions.routes, versions.models, answering.readiness, versions.statistics, counts)


def _routers(
    ground: _Ground,
    versions: _Versions,
    changes: _Changes,
    answering: _Answering,
    catalogue: Catalogue,
    feedback: Feedback,
    signature: Signature,
) -> list[APIRouter]:
    settings, clock, ledger, registry = ground.settings, ground.clock, ground.ledger, ground.registry
    models, follower, splits, health = versions.models, changes.follower, changes.splits, answering.health
    knowledge = Knowledge(registry, ledger, clock)
    counts = partial(ground.siblings.ask, "counts")
    details = ModelDetails(models, follower, splits, knowledge, health, versions.metrics, counts)
    promotions = Promotions(registry, ledger, changes.orders, clock, settings.model_folder_paths)
    traffic = Traffic(
        models,
        registry,
        changes.guard,
        ground.overrides,
        splits,
        ledger,
        ground.holder,
        clock,
        changes.unison.wake,
    )

    async def spread_delivery(delivery: str) -> None:
        await ground.siblings.ask("wake", delivery=delivery)

    return [
        protocol_routes(catalogue, changes.shelf),
        scoring_routes(catalogue),
        health_routes(health, ground.siblings.reports),
        model_routes(details, models),
        rollback_routes(changes.retreat),
        update_routes(promotions, models),
        restore_point_routes(registry, ledger, settings, clock),
        traffic_routes(traffic),
        audit_routes(ledger),
        error_routes(ledger),
        feedback_routes(feedback, clock),
        webhook_routes(signature, follower.wake, spread_delivery),
    ]


def _backing(
    ground: _Ground, changes: _Changes, answering: _Answering, catalogue: Catalogue, keyring: Keyring
) -> Backing:
    settings, clock = ground.settings, ground.clock
    access = Access(
        keyring,
        ground.rates,
        clock,
        is_loopback=settings.is_loopback,
        require_infer_key=settings.require_infer_key,
        hosts=settings.allowed_hosts,
    )
    return Backing(
        access,
        Intake(settings.max_inflight_mb << 20),
        answering.inference,
        catalogue,
        changes.shelf,
        answering.health.status_of,
        max_body_bytes=settings.max_body_mb << 20,
        timeout_seconds=settings.request_timeout_seconds,
    )


def _edge(backing: Backing, routes: Routes, framework: FastAPI) -> Edge:
    endpoint = InferEndpoint(
        backing.inference,
        backing.health,
        max_body_bytes=backing.max_body_bytes,
        timeout_seconds=backing.timeout_seconds,
    )
    scoring = ScoringEndpoint(
        backing.inference,
        routes.names,
        max_body_bytes=backing.max_body_bytes,
        timeout_seconds=backing.timeout_seconds,
    )
    return Edge(backing.access, backing.intake, endpoint, scoring, framework)


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
