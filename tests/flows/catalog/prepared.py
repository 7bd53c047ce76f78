"""Registering without the examining process: models laid out beforehand, and a home to register from.

What is examined is foreign to these tests; what becomes of it in store and registry is real.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import Engine

from flows.catalog.description import Description, Tensor
from flows.catalog.discover import source_digest
from flows.catalog.examined import Examined, Task
from flows.catalog.outcome import Recorder
from flows.catalog.publish import Publisher
from flows.catalog.register import Means
from flows.catalog.scan import ScanReport, Watch, scan
from flows.catalog.tracking import Tracking
from serving.core.clock import Clock, ManualClock
from serving.formats.artifact import payload_digest
from serving.formats.limits import FileLimits
from serving.store.registry import Registry

QUIET_SECONDS = 10.0
BAD = b"bad"


@dataclass
class PreparedExaminer:
    """Takes any bytes as a model but those that begin with `bad`; counts what it was asked."""

    asked: list[str] = field(default_factory=list)
    members: tuple[str, ...] = ()

    def examine(self, task: Task, work: Path) -> Examined:
        self.asked.append(task.source.name)
        content = task.source.read_bytes()
        if content.startswith(BAD):
            return Examined(problem="it is bad", next_step="make it good", members=self.members)
        task.root.mkdir()
        shutil.copyfile(task.source, task.root / "model.onnx")
        (task.root / "MLmodel").write_text("flavors: {onnx: {data: model.onnx}}\n")
        specs = (Tensor("x", "FP32", (-1, 3)),)
        described = Description(
            format="onnx",
            file_name="model.onnx",
            size_bytes=len(content),
            architecture="1 layer",
            inputs=specs,
            outputs=specs,
        ).completed(task.told)
        return Examined(
            members=self.members,
            format="onnx",
            source_digest=source_digest(task.source, self.members),
            digest=payload_digest(task.root),
            description=described.as_json(),
            golden="recorded",
        )


@dataclass
class Place:
    """A home with one model folder, and its way to a registry."""

    home: Path
    engine: Engine
    client: httpx.Client
    clock: ManualClock = field(default_factory=ManualClock)
    examiner: PreparedExaminer = field(default_factory=PreparedExaminer)
    on_sleep: Callable[[], object] = lambda: None
    adapt: Callable[[Means], Means] = lambda means: means

    @property
    def folder(self) -> Path:
        return self.home / "models"

    @property
    def registry(self) -> Registry:
        return registry_of(self.client)

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def means(self, clock: Clock | None = None) -> Means:
        plain = means_of(self.home, self.engine, self.client, self.examiner, clock or self.clock)
        return self.adapt(plain)

    def scan(self) -> ScanReport:
        """One pass; time passes only while it waits."""

        def sleep(seconds: float) -> None:
            self.on_sleep()
            self.clock.advance(seconds)

        return scan([self.folder], self.means(), Watch(QUIET_SECONDS, sleep), self.engine)


def registry_of(client: httpx.Client) -> Registry:
    return Registry(client, lambda model: True)


def means_of(
    home: Path, engine: Engine, client: httpx.Client, examiner: PreparedExaminer, clock: Clock
) -> Means:
    registry = registry_of(client)
    return Means(
        registry=registry,
        client=client,
        publisher=Publisher(Tracking(client), registry, clock, "tests"),
        examiner=examiner,
        recorder=Recorder(engine, clock, "tests"),
        clock=clock,
        home=home,
        limits=FileLimits(),
        threads=1,
    )
