"""Promotions as people start them, on the session's real Prefect and MLflow, and what became of them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import Engine, update

from serving.core.model import Alias
from serving.store import audit, changes, rollouts, schema, sightings
from serving.store.database import open_engine, writing
from serving.store.rollouts import Rollout, State
from serving.store.text import time_text
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.prefect_server import ROOT, PrefectServer
from tests.serving_process import ServingProcess
from tests.waiting import until

PROMOTE = "promote-model"
NOWHERE = "http://127.0.0.1:9/api"
# An event's run starts in 6 s and validates in as many on an idle machine; tests share theirs.
PROMOTION_SECONDS = 90.0


@dataclass
class Promotions:
    """All that is needed to promote versions of models called `flow-*`."""

    registry: MlflowRegistry
    prefect: PrefectServer
    start_serving: StartServing
    engine: Engine

    def serve(
        self, *recipes: str, announces: bool = True, mlflow_url: str | None = None
    ) -> tuple[RegisteredModel, ServingProcess]:
        """A model whose version 1 answers; without `announces` no event ever reaches Prefect."""
        model = self.registry.model(*recipes, prefix="flow-promotion")
        model.point("1")
        serving = self.start_serving(
            model.name,
            mlflow_url=mlflow_url,
            store_url=self.prefect.settings.database_url,
            prefect_api_url=self.prefect.url if announces else NOWHERE,
        )
        return model, serving

    def run(self, deployment: str, **parameters: object) -> dict[str, Any]:
        """Have Prefect run a deployment, as its UI and API do."""
        name = f"{deployment}/{deployment}"
        identity = self.prefect.call("GET", f"/deployments/name/{name}")["id"]
        url = f"{self.prefect.url}/deployments/{identity}/create_flow_run"
        answers: list[httpx.Response] = []

        def accepted() -> bool:  # on SQLite, Prefect answers 503 to what it could not write at once
            asked = {"parameters": parameters}
            answers.append(httpx.post(url, json=asked, trust_env=False, timeout=30.0))
            return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        until(accepted, f"Prefect accepts a run of {deployment}")
        assert answers[-1].is_success, answers[-1].text
        created: dict[str, Any] = answers[-1].json()
        return created

    def reconcile(self) -> str:
        """One run of reconcile; what it says it did."""
        run = self.ended(self.run("reconcile")["id"])
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
        return str(run["state"]["message"])

    def ended(self, run_id: str) -> dict[str, Any]:
        def state() -> str:
            return str(self.prefect.call("GET", f"/flow_runs/{run_id}")["state_type"])

        until(
            lambda: state() in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"),
            "the run has ended",
            seconds=PROMOTION_SECONDS,
            context=self.prefect.explain,
        )
        run: dict[str, Any] = self.prefect.call("GET", f"/flow_runs/{run_id}")
        return run

    def signalbox(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a user of this stack types it."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli.main", *arguments],
            cwd=ROOT,
            env=self.prefect.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def rollouts(self, model: RegisteredModel) -> list[Rollout]:
        """Oldest first."""
        return rollouts.recent(self.engine, model.name)[::-1]

    def finished(self, model: RegisteredModel, seconds: float = PROMOTION_SECONDS) -> Rollout:
        """The model's only rollout, once it has ended and the registry was told."""

        def is_over() -> bool:
            found = self.rollouts(model)
            return bool(found) and found[-1].state.is_terminal and "challenger" not in model.aliases()

        until(is_over, f"the rollout of {model.name} ended", seconds=seconds, context=self.prefect.explain)
        [rollout] = self.rollouts(model)
        return rollout

    def champion_moves(self, model: RegisteredModel) -> list[tuple[str | None, str | None]]:
        """Moves of alias `champion` that took place by an intended change, oldest first."""
        rows = changes.recent(self.engine, model.name)[::-1]
        made = [r for r in rows if (r.alias, r.outcome) == (Alias.CHAMPION, changes.Outcome.APPLIED)]
        return [(row.from_version, row.to_version) for row in made if not row.out_of_band]

    def waits(self, model: RegisteredModel, seconds: float) -> bool:
        """Whether the challenger has been waiting for so long."""
        seen = sightings.current(self.engine, model.name, Alias.CHALLENGER)
        return seen is not None and (datetime.now(UTC) - seen.seen_at).total_seconds() >= seconds

    def age(self, rollout: Rollout, minutes: float) -> None:
        """Let a rollout look as if nobody had worked on it for that long."""
        at = time_text(rollout.updated_at - timedelta(minutes=minutes))
        table = schema.rollouts
        with writing(self.engine) as connection:
            connection.execute(update(table).where(table.c.id == rollout.id).values(updated_at=at))

    def assert_promoted(self, model: RegisteredModel, version: str) -> Rollout:
        """One rollout, one move, one end, and the audit trail intact."""
        rollout = self.finished(model)
        assert (rollout.version, rollout.state) == (version, State.PROMOTED), rollout.reason
        assert model.aliases()["champion"] == version
        assert self.champion_moves(model)[-1][1] == version
        self.assert_nothing_lost()
        return rollout

    def assert_nothing_lost(self) -> None:
        verification = audit.verify(self.engine)
        assert verification.verdict is audit.Verdict.INTACT, verification


@contextmanager
def promoting(
    registry: MlflowRegistry, prefect: PrefectServer, start_serving: StartServing
) -> Iterator[Promotions]:
    engine = open_engine(prefect.settings.database_url)
    try:
        yield Promotions(registry, prefect, start_serving, engine)
    finally:
        engine.dispose()
