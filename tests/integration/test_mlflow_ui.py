"""MLflow's own pages show what was extracted from a model file, seen through a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from flows.catalog.presentation import run_params, version_tags
from tests.browser import shoot
from tests.integration.mlflow_screens import Shown, open_run, open_version, scroll_to_last_tag, show
from tests.mlflow_registry import MlflowRegistry, log_models
from tests.mlflow_server import MlflowServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shown(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    registry = MlflowRegistry(mlflow_server, log_models(mlflow_server, "net:4"))
    return show(registry, tmp_path_factory.mktemp("net"))


def test_version_page_shows_description_tags_and_signature_when_described(
    page: Page, shown: Shown, tmp_path: Path
) -> None:
    """Prose and facts as a list, every tag with its value, inputs and outputs of the signature."""
    open_version(page, shown)
    for text in ("Reads hand-written digits.", "Trained on: UCI digits, 1347 scans", "Licence: Apache-2.0"):
        expect(page.locator("main")).to_contain_text(text)
    expect(page.get_by_role("listitem").filter(has_text="input x: FP32, batch × 1 × 8 × 8")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="accuracy: 0.9756")).to_be_visible()
    expect(page.get_by_text("Inputs (1)")).to_be_visible()
    for key, value in version_tags(shown.description).items():
        row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=key, exact=True))
        expect(row).to_contain_text(value)
    scroll_to_last_tag(page, shown)
    picture = shoot(page, tmp_path / "version.png")
    assert picture.stat().st_size > 20_000


def test_run_page_shows_params_and_metrics_when_described(page: Page, shown: Shown, tmp_path: Path) -> None:
    """Every parameter, and the metrics that the author told."""
    open_run(page, shown)
    expect(page.get_by_text("Metrics (2)")).to_be_visible()
    expect(page.get_by_text(f"Parameters ({len(run_params(shown.description))})")).to_be_visible()
    for key, value in run_params(shown.description).items():
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
        expect(page.get_by_text(value, exact=True).first).to_be_visible()
    for text in ("accuracy", "0.9756", "loss", "0.0812"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    picture = shoot(page, tmp_path / "run.png")
    assert picture.stat().st_size > 20_000
