"""The inference use case over scripted versions: a desk to ask at, and what it counted."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, cast

import httpx
import numpy as np

from serving.accounts import Accounts, Answer
from serving.api.access import Access
from serving.api.edge import App, Edge
from serving.api.intake import Intake
from serving.api.keyring import KeyMirror, Keyring
from serving.api.rate import RateLimits
from serving.core.clock import SystemClock
from serving.core.datatypes import Array
from serving.core.errors import InvalidRequest
from serving.core.health import Status
from serving.followed import FollowedModel
from serving.formats.loader import LoadedModel
from serving.inference import Inference
from serving.pool import LoadedVersion
from serving.protocol.infer import InferEndpoint
from serving.protocol.scoring import ScoringEndpoint
from serving.routes import Routes
from serving.scores import Scores
from serving.shadow import Copied, CopyLimits, Shadow
from serving.telemetry.counters import Statistics
from serving.telemetry.metrics import Metrics
from serving.telemetry.recorder import Recorder
from serving.watch import Evidence
from tests.logged import inference_log, part_folder
from tests.story import eventually

X = np.array([[1.0, 2.0, 3.0]], np.float32)


class Hangs:
    """A model that does not answer until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.free.wait(20)
        return {"y": inputs["x"]}


@dataclass
class Compared:
    """Takes what came of copies and keeps it."""

    copies: list[Copied] = field(default_factory=list)

    async def add(self, copied: Copied) -> None:
        self.copies.append(copied)


@dataclass
class Desk:
    """The use case over scripted versions, and what it reported."""

    inference: Inference
    model: FollowedModel
    routes: Routes
    metrics: Metrics
    failing: list[Evidence]
    ejected: list[tuple[str, Evidence]]
    compared: "Compared"
    shadow: Shadow

    def install(self, champion: LoadedVersion, previous: LoadedVersion | None = None) -> None:
        self.model.served["champion"] = champion
        self.model.previous = previous
        self.routes.publish("digits", self.model.routes())

    async def ask(
        self,
        *,
        address: str | None = None,
        key: str | None = None,
        seconds: float = 20.0,
        finite: bool | frozenset[str] = True,
        array: Array = X,
    ) -> Answer:
        def read(model: LoadedModel) -> dict[str, Array]:
            if [spec.name for spec in model.inputs] != ["x"]:
                raise InvalidRequest("unknown input", tensor="x")
            return {"x": array}

        route = self.inference.route("digits", address, key)
        return await self.inference.infer(
            route, read, deadline=monotonic() + seconds, request_id="r-1", finite=finite
        )

    @property
    def counted(self) -> tuple[int, int]:
        """Answers and failures that count against the champion."""
        evidence = self.model.window.evidence(monotonic())
        return evidence.answers, evidence.failed


def open_desk(tmp_path: Path) -> Desk:
    """A desk without versions; its inference log takes records and writes none."""
    metrics, routes, model = Metrics(), Routes(), FollowedModel("digits")
    failing: list[Evidence] = []
    ejected: list[tuple[str, Evidence]] = []
    compared = Compared()
    clock = SystemClock()
    recorder = Recorder(metrics, clock, worker="w1")
    scores = Scores(
        {"digits": model},
        lambda _, evidence: failing.append(evidence),
        lambda _, challenger, evidence: ejected.append((challenger.ref.version, evidence)),
        recorder,
        clock,
    )
    accounts = Accounts(recorder, inference_log(part_folder(tmp_path), metrics), Statistics(clock), clock)
    shadow = Shadow(compared, accounts, metrics, clock, CopyLimits(ratio=1.0, in_flight=2), Random(7))
    inference = Inference(routes, scores, shadow, recorder, accounts, clock)
    return Desk(inference, model, routes, metrics, failing, ejected, compared, shadow)


async def become_prompt(desk: Desk, version: LoadedVersion) -> None:
    """Ask until the champion `version` was quick often enough to be asked on the event loop."""

    async def met() -> bool:
        await desk.ask()
        return version.is_prompt

    await eventually(met, f"version {version.ref} is quick")


async def nothing_behind(scope: object, receive: object, send: object) -> None:
    raise AssertionError("this request was inference's")


def open_access(*, require_infer_key: bool = False) -> Access:
    """The rules on loopback, where no key exists."""
    clock = SystemClock()
    keyring = Keyring(lambda: None, KeyMirror(Path("there-is-none")))
    return Access(
        keyring, RateLimits(clock), clock, is_loopback=True, require_infer_key=require_infer_key, hosts=""
    )


def edge(
    desk: Desk,
    *,
    behind: App = nothing_behind,
    max_body_bytes: int = 1 << 20,
    timeout_seconds: float = 20.0,
    require_infer_key: bool = False,
    access: Access | None = None,
) -> Edge:
    """The outermost application, on loopback, where no key exists."""
    endpoint = InferEndpoint(
        desk.inference,
        lambda model: Status.HEALTHY,
        lambda ref: {"p95_ms": 1.5, "accuracy": None},
        max_body_bytes=max_body_bytes,
        timeout_seconds=timeout_seconds,
    )
    access = access or open_access(require_infer_key=require_infer_key)
    scoring = ScoringEndpoint(
        desk.inference,
        desk.routes.names,
        max_body_bytes=max_body_bytes,
        timeout_seconds=timeout_seconds,
    )
    return Edge(access, Intake(1 << 30), endpoint, scoring, behind, lambda _: True)


def client(desk: Desk, **given: Any) -> httpx.AsyncClient:
    """An HTTP client of `edge`, which is made of what is `given`."""
    transport = httpx.ASGITransport(cast(Any, edge(desk, **given)))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8080")
