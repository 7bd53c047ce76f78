"""`health --now` as a user runs it: measured, kept, told, shown; and its exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from serving.core.health import Status
from serving.core.model import Tag
from serving.store import levels, outbox
from serving.store.database import open_engine, upgrade
from tests.flows.answers import Answers, Asked, answering
from tests.mlflow_double import MlflowDouble

ROOT = Path(__file__).parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]
RIGHT, WRONG = [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]


@dataclass
class Served:
    """Serving as far as the check needs it: it answers two rows, and shows the levels of the store."""

    engine: Engine
    output: list[float]

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.method == "POST":
            output = {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": self.output}
            told = {"model_version": "1", "parameters": {"variant": "champion"}, "outputs": [output]}
            return 200, told
        found = {
            str(stored.level): {
                "status": str(stored.report.status),
                "message": stored.report.message,
                "checked_at": stored.report.checked_at.isoformat() if stored.report.checked_at else None,
            }
            for stored in levels.all_levels(self.engine)
        }
        status = next((level["status"] for level in found.values()), "unknown")
        model = {"model": "digits", "version": "1", "alias": "champion", "status": status, "levels": found}
        return 200, {"status": status, "models": [model]}


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    url = f"sqlite:///{home / 'signalbox.db'}"
    upgrade(url)
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def served(engine: Engine) -> Served:
    return Served(engine, RIGHT)


@pytest.fixture
def prefect() -> Iterator[Answers]:
    with answering(lambda _: (204, "")) as answers:
        yield answers


@pytest.fixture
def run(home: Path, served: Served, prefect: Answers, tmp_path: Path) -> Iterator[Run]:
    """Run `signalbox` beside a registry whose version 1 of digits declares a set of two rows."""
    arrays: dict[str, Any] = {"input:x": np.zeros((2, 3), dtype=np.float32), "labels": np.asarray([0, 1])}
    np.savez(tmp_path / "evaluation.npz", **arrays)
    with MlflowDouble() as registry, answering(served.answer) as serving:
        for model in ("digits", "unknown"):
            registry.add(model, tmp_path)
            registry.point(model, "1")
            registry.models[model].tags[Tag.EVALUATION_SET] = f"mlflow-artifacts:/{model}/1/evaluation.npz"
        ours = {
            "PYTHONPATH": str(ROOT),
            "SIGNALBOX_MLFLOW_URL": registry.url,
            "SIGNALBOX_SERVING_URL": serving.url,
            "SIGNALBOX_PREFECT_API_URL": prefect.url,
        }

        def signalbox(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-P", "-m", "flows.cli.main", *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={**os.environ, **ours},
            )

        yield signalbox


def test_health_is_measured_and_shown_when_it_is_asked_for_now(run: Run, engine: Engine) -> None:
    """Of the one model that was named; the minutely check goes on from what was kept."""
    result = run("health", "digits", "--now", "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["checked"] == [
        "digits: healthy, accuracy 1.000 on 2 declared rows",
        "digits: health of version 1 is healthy, was not told",
    ]
    assert told["models"][0]["levels"]["functional"]["status"] == "healthy"
    [stored] = levels.all_levels(engine)
    assert (stored.model, stored.report.status) == ("digits", Status.HEALTHY)


def test_health_exits_with_one_and_tells_prefect_once_when_the_check_turns_critical(
    run: Run, served: Served, engine: Engine, prefect: Answers
) -> None:
    """As a run of the flow does: the event is what takes a failing champion back."""
    run("health", "digits", "--now")
    served.output = WRONG
    for _ in range(2):
        result = run("health", "digits", "--now")
        assert result.returncode == 1, result.stdout + result.stderr
        assert "checked digits: critical, accuracy 0.000" in result.stdout
    [[event]] = [asked.body for asked in prefect.asked]
    assert (event["event"], event["payload"]["version"]) == ("signalbox.health.critical", "1")
    assert event["id"]
    assert event["occurred"]
    assert [row.notice.kind for row in outbox.recent(engine)] == ["health_critical"]
