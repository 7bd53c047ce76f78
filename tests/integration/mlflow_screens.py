"""What a person sees of a version in MLflow's UI, as pictures; a program for looking, and parts of a test.

python -m tests.integration.mlflow_screens <folder>
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page

from flows.catalog.describe import describe
from flows.catalog.description import Description
from flows.catalog.presentation import page as page_of
from flows.catalog.presentation import run_metrics, run_params, version_tags
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import load
from tests.browser import executable, opened_page, shoot
from tests.mlflow_registry import MlflowRegistry, log_models
from tests.mlflow_server import MlflowServer
from tests.models import onnx_net

TOLD = {
    "description": "Reads hand-written digits.\n\nTrained on 8 × 8 scans; *not* for house numbers | cheques.",
    "model_author": "Ann Example <ann@example.org>",
    "model_license": "Apache-2.0",
    "training_dataset": "UCI digits, 1347 scans",
    "labels": "zero, one, two, three, four, five, six, seven, eight, nine",
    "metrics": '{"accuracy": 0.9756, "loss": 0.0812}',
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A version in MLflow, and the description that its pages should show."""

    model: str
    version: str
    run_url: str
    version_url: str
    description: Description


def show(registry: MlflowRegistry, folder: Path) -> Shown:
    """Register a version with everything its description gives: tags, page, parameters and metrics."""
    artifact = inspect_artifact(onnx_net(folder, properties=TOLD))
    description = describe(artifact, load(artifact, threads=1))
    model = registry.model("net:4", prefix="screen")
    logged, [version] = registry.logged["net:4"], ["1"]
    named = {"name": model.name, "version": version}
    for key, value in version_tags(description).items():
        registry.post("model-versions/set-tag", {**named, "key": key, "value": value})
    registry.call("PATCH", "model-versions/update", {**named, "description": page_of(description)})
    registry.post(
        "runs/log-batch",
        {
            "run_id": logged.run_id,
            "params": [{"key": key, "value": value} for key, value in run_params(description).items()],
            "metrics": [
                {"key": key, "value": value, "timestamp": 1_700_000_000_000, "step": 0}
                for key, value in run_metrics(description).items()
            ],
        },
    )
    run = registry.call("GET", f"runs/get?run_id={logged.run_id}")["run"]["info"]
    url = registry.server.url
    return Shown(
        model.name,
        version,
        run_url=f"{url}/#/experiments/{run['experiment_id']}/runs/{logged.run_id}",
        version_url=f"{url}/#/models/{model.name}/versions/{version}",
        description=description,
    )


def open_version(page: Page, shown: Shown) -> None:
    page.goto(shown.version_url)
    page.get_by_text(shown.description.architecture).first.wait_for()


def scroll_to_last_tag(page: Page, shown: Shown) -> None:
    """MLflow shows tags in a table of its own height."""
    last = max(version_tags(shown.description))
    page.get_by_text(last).scroll_into_view_if_needed()


def open_run(page: Page, shown: Shown) -> None:
    page.goto(shown.run_url)
    page.get_by_text(shown.description.architecture).first.wait_for()


def main() -> None:
    folder, program = Path(sys.argv[1]), executable()
    if program is None:
        sys.exit("no browser on PATH; install Debian's package chromium")
    with TemporaryDirectory() as work:
        server = MlflowServer(Path(work) / "mlflow")
        server.start()
        try:
            registry = MlflowRegistry(server, log_models(server, "net:4"))
            shown = show(registry, Path(work) / "net")
            with opened_page(program) as page:
                open_version(page, shown)
                print(shoot(page, folder / "version.png"))
                scroll_to_last_tag(page, shown)
                print(shoot(page, folder / "tags.png"))
                open_run(page, shown)
                print(shoot(page, folder / "run.png"))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
