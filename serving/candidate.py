"""Making a version ready to serve: fetch, verify, load, test. Everything fallible happens here.

Runs in a thread of its own, off the request path; nothing it does is visible to a request.
"""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.digest import tree_digest
from serving.core.errors import ArtifactRefused, StoreUnavailable
from serving.core.model import Tag
from serving.formats.artifact import Artifact, inspect_artifact, payload_files
from serving.formats.loader import LoadedModel, load
from serving.formats.selftest import Verdict, probe_inputs, self_test
from serving.pool import LoadedVersion, Provenance, VersionKey
from serving.store import digests
from serving.store.artifacts import ArtifactCache, CachedArtifact
from serving.store.record import ServedVersion
from serving.store.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_WARM_UP_RUNS = 3


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
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._engine = engine
        self._clock = clock
        self._threads = threads
        self._require_validation = require_validation

    def prepare(self, key: VersionKey) -> LoadedVersion:
        """Raises `ArtifactRefused`, `RegistryUnavailable`, or `NotServed` for a version that is gone."""
        registered = self._registry.version(key.ref)
        self._check_validation(registered)
        cached = self._cache.fetch(registered)
        digest = _payload_digest(cached)
        self._check_digest(registered, cached, digest)
        provenance = Provenance(key, registered.source, digest, cached.folder, registered)
        return self._load(provenance, cached)

    def restore(self, key: VersionKey, served: ServedVersion, cache_folder: Path) -> LoadedVersion:
        """The version as it was served before, from the local cache alone."""
        cached = self._cache.open(cache_folder / served.folder)
        if cached is None or _payload_digest(cached) != served.digest:
            raise ArtifactRefused(
                f"the local copy of {key.ref} is missing or damaged",
                next_step="it is fetched again from MLflow",
            )
        provenance = Provenance(key, served.source, served.digest, cached.folder, None)
        return self._load(provenance, cached)

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

    def _load(self, provenance: Provenance, cached: CachedArtifact) -> LoadedVersion:
        artifact = inspect_artifact(cached.root)
        model = load(artifact, self._threads)
        tested = self_test(model, artifact)
        if tested.verdict is Verdict.FAILED:
            model.close()
            raise ArtifactRefused(
                f"version {provenance.key.ref} failed its self-test on {tested.basis}: {tested.reason}",
                next_step="register a version whose outputs match what it declares",
            )
        _warm_up(model, artifact)
        return LoadedVersion(
            provenance, artifact, model, tested, self._clock.now(), workers=max(2, self._threads)
        )


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
