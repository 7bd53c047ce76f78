"""The registry over HTTP: what MLflow says is taken as said, and what it cannot mean is a clear refusal."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import VersionRef
from serving.store.registry import Registry, connect
from serving.store.settings import StoreSettings
from tests.mlflow_double import Fault, MlflowDouble

V1, V9 = VersionRef("digits", "1"), VersionRef("digits", "9")


@pytest.fixture
def double(tmp_path: Path) -> Iterator[MlflowDouble]:
    with MlflowDouble() as double:
        double.add("digits", tmp_path / "1", tmp_path / "2", **{"signalbox.format": "onnx"})
        double.point("digits", "1")
        yield double


@pytest.fixture
def client(double: MlflowDouble, tmp_path: Path) -> Iterator[httpx.Client]:
    with connect(StoreSettings(home=tmp_path, mlflow_url=double.url)) as client:
        yield client


@pytest.fixture
def registry(client: httpx.Client) -> Registry:
    return Registry(client, serves=lambda name: True)


def test_poll_reads_aliases_and_tags_in_one_call(registry: Registry, double: MlflowDouble) -> None:
    """One search tells all that a turn needs."""
    double.models["digits"].tags["signalbox.critical"] = "true"
    models = registry.registered_models()
    assert models["digits"].aliases == {"champion": "1"}
    assert models["digits"].tags == {"signalbox.critical": "true"}
    assert len(double.seen) == 1


def test_poll_reads_every_page_when_there_are_several(registry: Registry, double: MlflowDouble) -> None:
    """A model on the second page is not a model that vanished."""
    for name in ("a", "b", "c", "d"):
        double.add(name)
    double.page_size = 2
    assert sorted(registry.registered_models()) == ["a", "b", "c", "d", "digits"]
    assert len(double.seen) == 3


def test_poll_leaves_out_models_when_their_names_do_not_match(
    client: httpx.Client, double: MlflowDouble
) -> None:
    """The globs decide which models this server serves."""
    double.add("other")
    assert list(Registry(client, serves=lambda name: name == "other").registered_models()) == ["other"]


def test_poll_is_empty_when_nothing_is_registered(registry: Registry, double: MlflowDouble) -> None:
    """MLflow then leaves the list out altogether."""
    double.models.clear()
    assert registry.registered_models() == {}


def test_registry_reads_and_writes_only_its_own_names_when_it_has_an_environment(
    client: httpx.Client, double: MlflowDouble
) -> None:
    """Environments share one MLflow: each sees its own aliases and tags, without the prefix."""
    staging = Registry(client, serves=lambda name: True, env="staging")
    model = double.models["digits"]
    model.tags = {"staging-signalbox.critical": "true", "signalbox.critical": "false"}
    staging.set_alias("digits", "champion", "2")
    staging.set_version_tag(V1, "signalbox.health", "healthy")
    assert model.aliases == {"champion": "1", "staging-champion": "2"}
    assert model.versions["1"].tags["staging-signalbox.health"] == "healthy"
    seen = staging.registered_model("digits")
    assert seen.aliases == {"champion": "2"}
    assert seen.tags == {"signalbox.critical": "true"}
    staging.delete_alias("digits", "champion")
    assert model.aliases == {"champion": "1"}


def test_version_tells_its_origin(registry: Registry) -> None:
    """Source and birth tell it from a namesake."""
    version = registry.version(V1)
    assert (version.ref, version.source) == (V1, "models:/m-digits-1")
    assert version.tags == {"signalbox.format": "onnx"}
    assert registry.download_uri(V1) == "mlflow-artifacts:/digits/1"


def test_versions_come_oldest_first_when_there_are_pages(registry: Registry, double: MlflowDouble) -> None:
    """By number, not by text: 10 comes after 9."""
    double.add("digits", *[Path()] * 9)
    double.page_size = 4
    assert [version.ref.version for version in registry.versions("digits")] == [str(n) for n in range(1, 12)]
    assert registry.versions("nope") == []


def test_run_reads_metrics_params_and_datasets(registry: Registry, double: MlflowDouble) -> None:
    """What training left behind is shown with the version."""
    double.runs["r"] = {
        "data": {
            "metrics": [{"key": "accuracy", "value": 0.5}],
            "params": [{"key": "epochs", "value": "3"}],
        },
        "inputs": {"dataset_inputs": [{"dataset": {"name": "digits"}}]},
    }
    run = registry.run("r")
    assert (run.metrics, run.params, run.datasets) == ({"accuracy": 0.5}, {"epochs": "3"}, ("digits",))
    double.runs["bare"] = {}
    assert registry.run("bare").metrics == {}


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda r: r.registered_model("nope"), id="model"),
        pytest.param(lambda r: r.version(V9), id="version"),
        pytest.param(lambda r: r.download_uri(V9), id="download"),
        pytest.param(lambda r: r.run("nope"), id="run"),
        pytest.param(lambda r: r.set_alias("digits", "champion", "9"), id="alias-to-missing-version"),
        pytest.param(lambda r: r.delete_alias("nope", "champion"), id="alias-of-missing-model"),
    ],
)
def test_registry_says_what_is_missing_when_mlflow_answers_404(registry: Registry, call: object) -> None:
    """Missing is an answer, not an outage."""
    assert callable(call)
    with pytest.raises(NotServed, match="has no"):
        call(registry)


def test_alias_is_none_when_it_is_not_set(registry: Registry) -> None:
    """An alias that names nothing is no error."""
    assert registry.alias("digits", "champion") == "1"
    assert registry.alias("digits", "challenger") is None


@pytest.mark.parametrize("status", [401, 403])
def test_registry_names_the_settings_when_credentials_are_refused(
    registry: Registry, double: MlflowDouble, status: int
) -> None:
    """The sentence an operator can act on."""
    double.fault = Fault(status)
    with pytest.raises(RegistryUnavailable, match=r"refused the credentials.*SIGNALBOX_MLFLOW_USERNAME"):
        registry.registered_models()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(500, b"Internal Server Error"), id="500"),
        pytest.param(Fault(302, b""), id="redirect-to-a-login"),
        pytest.param(Fault(404, b"<html>not here</html>"), id="404-of-another-server"),
        pytest.param(Fault(200, b"<html>hello</html>"), id="html"),
        pytest.param(Fault(200, b""), id="nothing"),
        pytest.param(Fault(200, b"[]"), id="a-list"),
        pytest.param(Fault(200, b'{"registered_models": [{"nom": "digits"}]}'), id="other-fields"),
        pytest.param(Fault(200, b'{"registered_models": 7}'), id="not-a-list"),
        pytest.param(Fault(200, b'{"registered_models": [7]}'), id="not-a-model"),
        pytest.param(
            Fault(200, b'{"registered_models": [{"name": "d", "creation_timestamp": "noon"}]}'), id="no-time"
        ),
    ],
)
def test_poll_is_unavailable_when_the_answer_is_not_mlflows(
    registry: Registry, double: MlflowDouble, fault: Fault
) -> None:
    """Garbage is an outage: the caller keeps its last good state."""
    double.fault = fault
    with pytest.raises(RegistryUnavailable, match=double.url):
        registry.registered_models()


def test_version_is_unavailable_and_not_missing_when_a_stranger_answers_404(
    registry: Registry, double: MlflowDouble
) -> None:
    """Only MLflow's own 404 says that a version is gone."""
    double.fault = Fault(404, b"<html>not here</html>")
    with pytest.raises(RegistryUnavailable, match="answered 404"):
        registry.version(V1)


def test_poll_is_unavailable_when_nobody_listens(tmp_path: Path) -> None:
    """A wrong address is one clear sentence."""
    with (
        connect(StoreSettings(home=tmp_path, mlflow_url="http://127.0.0.1:9")) as client,
        pytest.raises(RegistryUnavailable, match=r"http://127\.0\.0\.1:9 did not answer"),
    ):
        Registry(client, serves=lambda name: True).registered_models()


def test_connection_is_refused_when_the_url_cannot_be_one(tmp_path: Path) -> None:
    """At start, and naming the setting."""
    with pytest.raises(RegistryUnavailable, match="SIGNALBOX_MLFLOW_URL is not a URL"):
        connect(StoreSettings(home=tmp_path, mlflow_url="http://localhost:port"))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_connection_is_refused_when_the_ca_bundle_is_unusable(tmp_path: Path, content: bytes | None) -> None:
    """Missing and damaged alike name the setting."""
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(RegistryUnavailable, match="SIGNALBOX_CA_BUNDLE"):
        connect(StoreSettings(home=tmp_path, ca_bundle=bundle))


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        pytest.param({"mlflow_token": SecretStr("t0k")}, "Bearer t0k", id="token"),
        pytest.param(
            {"mlflow_username": "ann", "mlflow_password": SecretStr("pw")}, "Basic YW5uOnB3", id="basic"
        ),
        pytest.param({"mlflow_username": "ann"}, "Basic YW5uOg==", id="no-password"),
        pytest.param({}, "", id="none"),
    ],
)
def test_connection_carries_the_credentials_the_settings_name(
    double: MlflowDouble, tmp_path: Path, settings: dict[str, object], header: str
) -> None:
    """Token before password, and nothing where nothing is set."""
    with connect(StoreSettings(home=tmp_path, mlflow_url=double.url, **settings)) as client:  # type: ignore[arg-type]
        Registry(client, serves=lambda name: True).registered_models()
    assert double.authorizations == {header}
