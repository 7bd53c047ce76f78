"""What a person sees in MLflow's and Prefect's pages while a version they clicked rolls out, as pictures.

python -m tests.integration.rollout_screens <folder>
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page

from serving.store import rollouts
from serving.store.database import open_engine
from serving.store.rollouts import Rollout, State
from tests.browser import executable, opened_page, shoot
from tests.integration.mlflow_person import Person
from tests.mlflow_registry import MlflowRegistry, RegisteredModel, log_models
from tests.mlflow_server import MlflowServer
from tests.prefect_server import PrefectServer
from tests.serving_process import ServingProcess
from tests.traffic import Traffic
from tests.waiting import until

_PLAN = {"strategy": "staged", "stages": "25,50,100", "stage_seconds": 8.0}
_RATE = 50
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A stack in which one model answers its callers."""

    model: RegisteredModel
    prefect: PrefectServer

    @property
    def registry(self) -> MlflowRegistry:
        return self.model.registry

    def person(self, page: Page) -> Person:
        prefect_url = self.prefect.url.removesuffix("/api")
        return Person(page, self.registry.server.url, prefect_url, self.model.name)

    def rollout(self, version: str) -> Rollout | None:
        """The newest rollout of the version."""
        engine = open_engine(self.prefect.settings.database_url)
        try:
            found = rollouts.recent(engine, self.model.name)
        finally:
            engine.dispose()
        return next((each for each in found if each.version == version), None)

    def ended(self, version: str) -> Rollout:
        """The rollout, once it has ended and its report was left."""

        def is_over() -> bool:
            rollout = self.rollout(version)
            is_told = rollout is not None and rollout.id in self.registry_files()
            return rollout is not None and rollout.state is not State.OPEN and is_told

        until(is_over, f"version {version} is decided", seconds=_SECONDS, context=self.prefect.explain)
        rollout = self.rollout(version)
        assert rollout is not None
        return rollout

    def registry_files(self) -> str:
        """The names of what was left beside the runs of all versions."""
        runs = (logged.run_id for logged in self.registry.logged.values())
        listed = (self.registry.call("GET", f"artifacts/list?run_id={run}&path=signalbox") for run in runs)
        return " ".join(file["path"] for found in listed for file in found.get("files", []))


@contextmanager
def set_up(work: Path) -> Iterator[Stage]:
    """MLflow, Prefect with a worker, serving, and callers who ask all the time."""
    with ExitStack() as stack:
        server = MlflowServer(work / "mlflow")
        stack.callback(server.stop)
        server.start()
        registry = MlflowRegistry(server, log_models(server, "onnx:1", "onnx:2", "onnx:3"))
        model = registry.model("onnx:1", "onnx:2", "onnx:3", prefix="flow-screen")
        model.point("1")
        prefect = PrefectServer(work / "prefect", server.url, plan=dict(_PLAN))
        stack.callback(prefect.stop)
        prefect.start()
        told = {"store_url": prefect.settings.database_url, "prefect_api_url": prefect.url}
        serving = ServingProcess(work / "serving", server.url, model.name, told)
        stack.callback(serving.kill)
        serving.start_ready()
        stack.enter_context(Traffic(serving.url, model.name, rate_per_second=_RATE))
        yield Stage(model, prefect)


def promote(stage: Stage, person: Person, folder: Path) -> None:
    """From the click to the reports."""
    person.add_alias("2", "challenger")
    picture(person, folder, "1-alias-set")
    person.sees("2", verdict="open: observe at 50 %")
    picture(person, folder, "2-at-50-percent")
    rollout = stage.ended("2")
    person.sees("2", verdict="promoted")
    picture(person, folder, "3-promoted")
    run = stage.registry.call("GET", f"runs/get?run_id={stage.registry.logged['onnx:2'].run_id}")["run"]
    person.open_run_file(run["info"]["experiment_id"], run["info"]["run_id"], rollout.id)
    picture(person, folder, "4-report-in-mlflow", "Requests, errors and latency")
    [report] = stage.prefect.artifacts(f"promotion-{stage.model.name}")
    person.open_artifact(report["id"])
    picture(person, folder, "5-report-in-prefect", "Requests, errors and latency")
    person.open_flow_run(report["flow_run_id"])
    person.page.get_by_text(f"rollout {rollout.id} opened").wait_for()
    picture(person, folder, "6-run-in-prefect")


def abort(stage: Stage, person: Person, folder: Path) -> None:
    """Another version, whose alias is deleted while it is observed."""
    person.add_alias("3", "challenger")
    person.sees("3", verdict="open: observe at 25 %")
    person.remove_alias("3", "challenger")
    stage.ended("3")
    person.sees("3", verdict="rolled_back")
    picture(person, folder, "7-aborted")
    person.open_model()
    picture(person, folder, "8-versions")


def picture(person: Person, folder: Path, name: str, image: str | None = None) -> None:
    """The page as it stands; with `image`, once that is drawn."""
    if image is not None:
        person.page.get_by_role("img", name=image).wait_for()
    print(shoot(person.page, folder / f"{name}.png"))


def main() -> None:
    folder, program = Path(sys.argv[1]), executable()
    if program is None:
        sys.exit("no browser on PATH; install Debian's package chromium")
    with TemporaryDirectory() as work, set_up(Path(work)) as stage, opened_page(program) as page:
        person = stage.person(page)
        promote(stage, person, folder)
        abort(stage, person, folder)


if __name__ == "__main__":
    main()
