"""A drift check from settings to store: the declared set fetched from a real MLflow server."""

import io
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.drift.verdict import Verdict
from flows.drift_check import DriftParameterRefused, asked, check_drift
from flows.settings import FlowSettings
from flows.wiring import Wiring, wired
from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import Tag, VersionRef
from serving.store import reports
from serving.store.database import upgrade
from serving.store.inference_log import log_folder
from tests.flows.conftest import SettingsFactory
from tests.logged import floats, write_log
from tests.mlflow_server import MlflowServer

pytestmark = pytest.mark.integration

_SET = "drift-tests/evaluation.npz"


def _post(server: MlflowServer, call: str, **body: str) -> None:
    answer = httpx.post(f"{server.url}/api/2.0/mlflow/{call}", json=body, trust_env=False, timeout=30)
    assert answer.status_code == httpx.codes.OK, answer.text


def _register(server: MlflowServer, model: str, evaluation_set: str | None = None) -> None:
    """A registered model without versions, with a tag that names a set."""
    _post(server, "registered-models/create", name=model)
    if evaluation_set:
        _post(server, "registered-models/set-tag", name=model, key=Tag.EVALUATION_SET, value=evaluation_set)


def _upload(server: MlflowServer) -> None:
    """A set of 400 rows in MLflow's artifact store."""
    file = io.BytesIO()
    arrays = {"input:x": floats(400, 2, seed=1), "labels": np.zeros(400, np.int64)}
    np.savez(file, allow_pickle=False, **arrays)
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/{_SET}"
    assert httpx.put(url, content=file.getvalue(), trust_env=False).status_code == httpx.codes.OK


@pytest.fixture
def wiring(mlflow_server: MlflowServer, make_settings: SettingsFactory) -> Iterator[Wiring]:
    settings: FlowSettings = make_settings(mlflow_url=mlflow_server.url)
    upgrade(settings.database_url)
    with wired(settings) as wiring:
        yield wiring


def _log(wiring: Wiring, model: str, shift: float) -> None:
    ref = VersionRef(model, "1")
    write_log(log_folder(wiring.settings.home), {"x": floats(400, 2, seed=2) + shift}, ref=ref)


def test_drift_is_stored_when_traffic_left_the_declared_set(
    wiring: Wiring, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registered model's set is the reference; the command prints the same, and exits with 1."""
    _upload(mlflow_server)
    _register(mlflow_server, "drifting", f"mlflow-artifacts:/{_SET}")
    _log(wiring, "drifting", shift=0.5)
    done = check_drift(wiring, asked(wiring.settings, "drifting"))
    assert (done.report.verdict, done.report.share) == (Verdict.DRIFT, 1.0)
    assert done.page is not None
    assert done.page.exists()
    stored = reports.latest(wiring.engine, "drift", "drifting")
    assert stored is not None
    assert stored.body["drifted"] == ["x.0", "x.1"] or stored.body["drifted"] == ["x.1", "x.0"]

    monkeypatch.setenv("SIGNALBOX_MLFLOW_URL", mlflow_server.url)
    run = CliRunner().invoke(app, ["drift", "drifting", "--json"])
    assert (run.exit_code, json.loads(run.stdout)["verdict"]) == (1, "drift")
    table = CliRunner().invoke(app, ["drift", "drifting"])
    assert "drift: 2 of 2 measured columns drifted" in table.stdout


def test_no_drift_is_stored_when_the_log_is_its_own_reference(
    wiring: Wiring, mlflow_server: MlflowServer
) -> None:
    """A model without a declared set, and without a champion, is compared with its first rows."""
    _register(mlflow_server, "steady")
    _log(wiring, "steady", shift=0)
    done = check_drift(wiring, asked(wiring.settings, "steady"))
    assert (done.report.verdict, done.page) == (Verdict.NO_DRIFT, None)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        pytest.param("s3://bucket/set.npz", "must be given as", id="foreign scheme"),
        pytest.param("mlflow-artifacts:/drift-tests/none.npz", "evaluation set", id="nothing there"),
    ],
)
def test_nothing_is_measured_when_the_declared_set_cannot_be_used(
    wiring: Wiring, mlflow_server: MlflowServer, uri: str, said: str
) -> None:
    """A declared set that cannot be read is never replaced in silence."""
    model = f"refused-{len(uri)}"
    _register(mlflow_server, model, uri)
    _log(wiring, model, shift=0)
    report = check_drift(wiring, asked(wiring.settings, model)).report
    assert report.verdict is Verdict.NOT_MEASURED
    assert said in report.message


def test_model_is_refused_when_the_registry_does_not_know_it(wiring: Wiring) -> None:
    """A typing error is not a model without drift."""
    with pytest.raises(NotServed, match="nobody"):
        check_drift(wiring, asked(wiring.settings, "nobody"))


def test_check_is_unavailable_when_mlflow_is_away(make_settings: SettingsFactory) -> None:
    """Without the registry the reference is not known."""
    settings = make_settings(mlflow_url="http://127.0.0.1:9")
    upgrade(settings.database_url)
    with wired(settings) as wiring, pytest.raises(RegistryUnavailable):
        check_drift(wiring, asked(settings, "digits"))


@pytest.mark.parametrize("rows", ["many", "-5", "12.5", 99])
def test_rows_are_refused_when_they_are_no_window(make_settings: SettingsFactory, rows: int | str) -> None:
    """Parameters of triggers are text; what is no usable number is named."""
    with pytest.raises(DriftParameterRefused, match=f"not '{rows}'"):
        asked(make_settings(), "digits", rows=rows)


def test_blank_parameters_are_defaults_when_normalised(make_settings: SettingsFactory) -> None:
    """An event template that renders to nothing means the default."""
    settings = make_settings()
    assert asked(settings, " digits ", version=2, rows="500").rows == 500
    assert asked(settings, "digits", version=2).version == "2"
    blank = asked(settings, "digits", version="", rows="")
    assert (blank.version, blank.rows) == (None, settings.drift_rows)
