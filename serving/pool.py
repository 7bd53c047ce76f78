"""Loaded versions: who is using one, and when it may be released.

Every execution holds a use of its version until the model code has really returned, also when the
caller gave up; a version is closed only after its last use, outside the request path.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from serving.core.errors import ModelFailed
from serving.core.model import VersionRef
from serving.formats.artifact import Artifact
from serving.formats.loader import LoadedModel
from serving.formats.selftest import SelfTest
from serving.store.registry import ModelVersion

log = logging.getLogger(__name__)

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class VersionKey:
    """A version together with the birth of its registered model, so that a namesake is another version."""

    ref: VersionRef
    created_ms: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a loaded version came from; enough to load it again without the registry."""

    key: VersionKey
    source: str
    digest: str
    folder: Path
    registered: ModelVersion | None


@dataclass(slots=True)
class Timing:
    """When one execution was asked for, begun and done, in nanoseconds of the performance counter.

    `rows` is its batch size.
    """

    asked_ns: int = 0
    begun_ns: int = 0
    done_ns: int = 0
    rows: int = 1


class LoadedVersion:
    """One version in memory, with threads of its own so that a hanging model holds up no other."""

    def __init__(
        self,
        provenance: Provenance,
        artifact: Artifact,
        model: LoadedModel,
        self_test: SelfTest,
        loaded_at: datetime,
        workers: int,
    ) -> None:
        self.provenance = provenance
        self.artifact = artifact
        self.model = model
        self.self_test = self_test
        self.loaded_at = loaded_at
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=f"infer-{provenance.key.ref}")
        self._guard = threading.Lock()
        self._uses = 0
        self._retired = False
        self._idle = threading.Event()

    @property
    def key(self) -> VersionKey:
        return self.provenance.key

    @property
    def ref(self) -> VersionRef:
        return self.provenance.key.ref

    @property
    def uses(self) -> int:
        """Executions that have not returned yet, and requests that may still begin one."""
        return self._uses

    @contextmanager
    def held(self) -> Iterator[None]:
        """A use without an execution: keeps the version open for a request that may still turn to it."""
        with self._guard:
            self._uses += 1
        try:
            yield
        finally:
            self._release(None)

    async def run(self, inputs: Tensors, timing: Timing | None = None) -> dict[str, np.ndarray]:
        """Outputs by name; `timing` is filled in. Raises `ModelFailed` for anything the model raises."""
        with self._guard:
            self._uses += 1
        try:
            execution = self._threads.submit(self._predict, inputs, timing or Timing())
        except RuntimeError:
            self._release(None)
            raise ModelFailed("was released", model=self.ref.model, version=self.ref.version) from None
        execution.add_done_callback(self._release)
        try:
            return await asyncio.wrap_future(execution)
        except Exception as error:  # the edge to foreign code: whatever a model raises is its failure
            raise ModelFailed(
                f"{type(error).__name__}: {error}", model=self.ref.model, version=self.ref.version
            ) from error

    def _predict(self, inputs: Tensors, timing: Timing) -> dict[str, np.ndarray]:
        timing.begun_ns = time.perf_counter_ns()
        outputs = self.model.predict(inputs)
        timing.done_ns = time.perf_counter_ns()
        return outputs

    def retire(self, timeout_seconds: float) -> bool:
        """Wait for the last use, then close. Blocks; False when uses remained and the model was left be."""
        with self._guard:
            self._retired = True
            if self._uses == 0:
                self._idle.set()
        if not self._idle.wait(timeout_seconds):
            log.warning("version_still_in_use version=%s uses=%d", self.ref, self._uses)
            return False
        self._threads.shutdown(wait=True)
        self.model.close()
        return True

    def _release(self, _: Future[dict[str, np.ndarray]] | None) -> None:
        with self._guard:
            self._uses -= 1
            if self._retired and self._uses == 0:
                self._idle.set()


class Pool:
    """The versions in memory, by key. Confined to the event loop's thread."""

    def __init__(self) -> None:
        self._loaded: dict[VersionKey, LoadedVersion] = {}

    def get(self, key: VersionKey) -> LoadedVersion | None:
        return self._loaded.get(key)

    def add(self, version: LoadedVersion) -> None:
        self._loaded[version.key] = version

    def remove_unused(self, model: str, keep: Iterable[LoadedVersion]) -> list[LoadedVersion]:
        """Take out the versions of a model that nothing refers to any more; the caller retires them."""
        kept = {version.key for version in keep}
        gone = [v for v in self._loaded.values() if v.ref.model == model and v.key not in kept]
        for version in gone:
            del self._loaded[version.key]
        return gone

    def all(self) -> list[LoadedVersion]:
        return list(self._loaded.values())
