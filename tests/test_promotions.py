"""A model file that nobody has registered yet: the request has that done, waits for it, and goes on."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from serving.core.clock import ManualClock
from serving.core.errors import ArtifactRefused, ChangeRefused
from serving.ledger import Ledger
from serving.orders import Orders
from serving.promotions import REGISTER_DEPLOYMENT, Asked, Promotions
from serving.store import model_files, rollouts
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.model_files import ModelFile, State
from serving.store.registry import Registry, connect
from serving.store.settings import StoreSettings
from serving.store.trail import Trail
from tests.flows.answers import Answers, answering
from tests.flows.answers import Asked as Request
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.story import story


@dataclass
class Counter:
    """Where promotions are asked for. `becomes` is what the file is noted as, by looks that it took."""

    promotions: Promotions
    engine: Engine
    clock: ManualClock
    prefect: Answers
    path: Path
    becomes: dict[int, ModelFile]
    looks: int = 0

    async def begin(self) -> rollouts.Rollout:
        asked = Asked(model="m", version=None, model_path=str(self.path), strategy="direct", actor="anna")
        return await self.promotions.begin(asked)

    async def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.looks += 1
        if (file := self.becomes.get(self.looks)) is not None:
            model_files.put_all(self.engine, [file], self.clock.now())

    def note(self, state: State, **more: Any) -> ModelFile:
        now = self.clock.now()
        return ModelFile(path=str(self.path), fingerprint="f", since=now, state=state, **more)

    def orders(self) -> list[str]:
        """Deployments that Prefect was asked for, in order."""
        prefix = "/deployments/name/"
        return [asked.path.removeprefix(prefix) for asked in self.prefect.asked if prefix in asked.path]


@pytest.fixture
def registry(double: MlflowDouble, tmp_path: Path) -> Iterator[Registry]:
    double.add("m", *[onnx_adder(tmp_path / "registry" / str(n), float(n)) for n in (1, 2)])
    with connect(StoreSettings(home=tmp_path, mlflow_url=double.url)) as client:
        yield Registry(client, lambda _: True)


@asynccontextmanager
async def counter(home: Path, registry: Registry, *, is_away: bool = False) -> AsyncIterator[Counter]:
    def prefect(asked: Request) -> tuple[int, Any]:
        return (500, {}) if is_away else (200, {"id": "1"})

    folder = home / "models"
    folder.mkdir()
    path = folder / "new.onnx"
    path.touch()
    clock = ManualClock()
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    ledger = Ledger(engine, Trail(engine, Journal(home / "journal.jsonl"), clock), clock)
    with answering(prefect) as answers:
        async with httpx.AsyncClient(base_url=answers.url, trust_env=False) as client:
            promotions = Promotions(
                registry, ledger, Orders(client), clock, [folder], lambda seconds: here.pause(seconds)
            )
            here = Counter(promotions, engine, clock, answers, path, {})
            try:
                yield here
            finally:
                ledger.close()
                engine.dispose()


@story
async def test_promotion_begins_once_its_file_became_a_version(home: Path, registry: Registry) -> None:
    """Through the states in between; one order does."""
    async with counter(home, registry) as here:
        here.becomes = {
            1: here.note(State.CHANGING),
            3: here.note(State.REGISTERING),
            5: here.note(State.REGISTERED, model="m", version="2"),
        }
        rollout = await here.begin()
        assert (rollout.version, here.looks) == ("2", 5)
        assert here.orders() == [REGISTER_DEPLOYMENT, "promote-model/promote-model"]


@story
async def test_file_that_is_registered_is_not_waited_for(home: Path, registry: Registry) -> None:
    async with counter(home, registry) as here:
        registered = here.note(State.REGISTERED, model="m", version="2")
        model_files.put_all(here.engine, [registered], here.clock.now())
        assert (await here.begin()).version == "2"
        assert (here.looks, here.orders()) == (0, ["promote-model/promote-model"])


@story
async def test_refusal_of_the_file_ends_the_wait(home: Path, registry: Registry) -> None:
    async with counter(home, registry) as here:
        here.becomes = {2: here.note(State.REFUSED, reason="a pickle")}
        with pytest.raises(ArtifactRefused, match=r"new\.onnx was refused at registration: a pickle"):
            await here.begin()
        assert rollouts.recent(here.engine) == []


@story
async def test_wait_is_bounded(home: Path, registry: Registry) -> None:
    """By a minute, in which the pass is asked for again: a pass that was under way may be past the file."""
    async with counter(home, registry) as here:
        began = here.clock.monotonic()
        with pytest.raises(ChangeRefused, match="that was begun now; ask again in a minute"):
            await here.begin()
        assert here.clock.monotonic() - began == 60
        assert here.orders() == [REGISTER_DEPLOYMENT] * 3
        assert rollouts.recent(here.engine) == []


@story
async def test_nobody_is_waited_for_when_prefect_is_away(home: Path, registry: Registry) -> None:
    async with counter(home, registry, is_away=True) as here:
        with pytest.raises(ChangeRefused, match=r"nobody can do that now: Prefect at .* answered 500"):
            await here.begin()
        assert here.looks == 0
