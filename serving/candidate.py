"""Making a version ready to serve: fetch, verify, load, test. Everything fallible happens here.

Runs in a thread of its own, off the request path; nothing it does is visible to a request.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from sqlalchemy import Engine

from serving.batcher import DEFAULT_LIMITS, BatchLimits
from serving.core.clock import Clock
from serving.core.digest import tree_digest
from serving.core.errors import ArtifactRefused, StoreUnavailable
from serving.core.model import Tag
from serving.formats.artifact import Artifact, inspect_artifact, payload_files
from serving.formats.independence import are_rows_independent
from serving.formats.loader import LoadedModel, import_adapter, load
from serving.formats.selftest import Verdict, probe_inputs, self_test
from serving.pool import LoadedVersion, Loading, Provenance, VersionKey
from serving.promptness import Watchdog
from serving.store import digests
from serving.store.artifacts import ArtifactCache, CachedArtifact
from serving.store.record import ServedVersion
from serving.store.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True)
class Fetched:
    """Files that may be loaded, and what that will take by the tag or by their size."""

    provenance: Provenance
    root: Path
    estimate_bytes: int


class Preparation:
    """Turns a wanted version into a loaded one, or says why it must not be served."""

    def __init__(
        self,
        registry: Registry,
        cache: ArtifactCache,
        engine: Engine,
        clock: Clock,
        *,
        threads: int,
        require_validation: bool,
        batch_limits: BatchLimits = DEFAULT_LIMITS,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._engine = engine
        self._clock = clock
        self._threads = threads
        self._require_validation = require_validation
        self._batch_limits = batch_limits
        self._watchdog = watchdog

    def fetch(self, key: VersionKey) -> Fetched:
        """The version's files on this machine, verified.

        Raises `ArtifactRefused`, `RegistryUnavailable`, or `NotServed` for a version that is gone.
        """
        registered = self._registry.version(key.ref)
        self._check_validation(registered)
        cached = self._cache.fetch(registered)
        digest = _payload_digest(cached)
        self._check_digest(registered, cached, digest)
        provenance = Provenance(key, registered.source, digest, cached.folder, registered)
        return Fetched(provenance, cached.root, _estimate_bytes(cached.root, registered))

    def open(self, key: VersionKey, served: ServedVersion, cache_folder: Path) -> Fetched:
        """The files of a version that was served before, from the local cache alone."""
        cached = self._cache.open(cache_folder / served.folder)
        if cached is None or _payload_digest(cached) != served.digest:
            raise ArtifactRefused(
                f"the local copy of {key.ref} is missing or damaged",
                next_step="it is fetched again from MLflow",
            )
        provenance = Provenance(key, served.source, served.digest, cached.folder, None)
        return Fetched(provenance, cached.root, _estimate_bytes(cached.root, None))

    def _check_validation(self, registered: ModelVersion) -> None:
        if not self._require_validation:
            return
        verdict = registered.tags.get(Tag.VALIDATION)
        if verdict != "passed":
            raise ArtifactRefused(
                f"version {registered.ref} is not validated (tag {Tag.VALIDATION} is {verdict or 'missing'})",
                next_step="validate it, or unset SIGNALBOX_REQUIRE_VALIDATION",
            )

    def _check_digest(self, registered: ModelVersion, cached: CachedArtifact, digest: str) -> None:
        expected = registered.tags.get(Tag.DIGEST) or self._recorded_digest(registered, digest)
        if expected == digest:
            return
        # The copy is what the artifact store gave; keeping it would make the refusal permanent.
        shutil.rmtree(cached.folder, ignore_errors=True)
        raise ArtifactRefused(
            f"the files of {registered.ref} have digest {digest[:12]}, recorded was {expected[:12]}",
            next_step="they were changed after registration: register them as a new version",
        )

    def _recorded_digest(self, registered: ModelVersion, digest: str) -> str:
        ref = registered.ref
        try:
            return digests.record(self._engine, ref.model, ref.version, registered.source, digest)
        except StoreUnavailable as error:
            log.warning("digest_not_recorded version=%s reason=%s", ref, error)
            return digest

    def load(self, fetched: Fetched) -> LoadedVersion:
        """The version in memory, tested and warmed up. Raises `ArtifactRefused`."""
        artifact, ref = inspect_artifact(fetched.root), fetched.provenance.key.ref
        import_adapter(artifact.format)  # what the library itself takes is not the version's cost
        before_bytes = _resident_bytes()
        model = load(artifact, self._threads)
        tested = self_test(model, artifact)
        if tested.verdict is Verdict.FAILED:
            model.close()
            raise ArtifactRefused(
                f"version {ref} failed its self-test on {tested.basis}: {tested.reason}",
                next_step="register a version whose outputs match what it declares",
            )
        _warm_up(model, artifact)
        grown_bytes = _resident_bytes() - before_bytes
        return LoadedVersion(
            fetched.provenance,
            artifact,
            model,
            tested,
            self._clock.now(),
            workers=max(2, self._threads),
            loading=Loading(
                cost_bytes=max(grown_bytes, _payload_bytes(fetched.root)),
                is_joinable=are_rows_independent(model, artifact),
            ),
            batch_limits=self._batch_limits,
            clock=self._clock,
            watchdog=self._watchdog,
        )

    def load_again(self, version: LoadedVersion) -> LoadedModel:
        """The model of a version that slept; its files were verified when it was loaded first."""
        model = load(version.artifact, self._threads)
        _warm_up(model, version.artifact)
        return model


async def in_thread(work: Callable[[], Result], discard: Callable[[Result], None]) -> Result:
    """Await `work` done on a daemon thread. A result that nobody awaits any more goes to `discard`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def deliver(result: Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            if error is None and result is not None:
                threading.Thread(target=discard, args=(result,), daemon=True).start()
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: Result | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as raised:  # carried over to whoever awaits
            error = raised
        try:
            loop.call_soon_threadsafe(deliver, result, error)
        except RuntimeError:  # the loop has ended meanwhile
            if result is not None:
                discard(result)

    threading.Thread(target=run, name="prepare", daemon=True).start()
    return await done


def _warm_up(model: LoadedModel, artifact: Artifact) -> None:
    """Let lazy compilers do their work before the first caller: TorchScript optimises its first few runs."""
    probe = probe_inputs(model, artifact)
    if probe is None:
        return
    for _ in range(_WARM_UP_RUNS):
        with suppress(Exception):  # the self-test has judged it; this only spends time ahead
            model.predict(probe.inputs)


def _payload_digest(cached: CachedArtifact) -> str:
    """Digest of the model data alone, from the hashes that opening the copy has just verified."""
    paths = (file.relative_to(cached.root).as_posix() for file in payload_files(cached.root))
    return tree_digest({path: cached.sha256_by_path[path] for path in paths if path in cached.sha256_by_path})


def _estimate_bytes(root: Path, registered: ModelVersion | None) -> int:
    """What loading will take: as measured before and noted in the tag, else twice the payload."""
    told = registered.tags.get(Tag.MEMORY_MB) if registered is not None else None
    try:
        if told is not None and (megabytes := float(told)) > 0:
            return int(megabytes * (1 << 20))
    except ValueError:
        log.warning("memory_tag_unreadable value=%r", told)
    return 2 * _payload_bytes(root)


def _payload_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in payload_files(root))


def _resident_bytes() -> int:
    size_bytes: int = psutil.Process().memory_info().rss
    return size_bytes
