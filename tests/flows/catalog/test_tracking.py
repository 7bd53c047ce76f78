"""The writes to MLflow: what a server that refuses, or keeps files elsewhere, means for the file at hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from flows.catalog.publish import Publisher
from flows.catalog.tracking import Attempt, Facts, Tracking, read_attempt
from serving.core.errors import ArtifactRefused, RegistryUnavailable
from serving.store.registry import Registry
from tests.flows.catalog.prepared import Place

FACTS = Facts(run_name="a.onnx", user="me", tags={}, params={}, metrics={}, dataset=None)
ATTEMPT = Attempt("abc", "digits", "7")


def tracking(answer: Callable[[httpx.Request], httpx.Response]) -> Tracking:
    return Tracking(httpx.Client(base_url="http://mlflow", transport=httpx.MockTransport(answer)))


def test_file_is_refused_when_mlflow_takes_no_such_value() -> None:
    """Asking again would be told the same: it is what is said of the file that has to change."""
    body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid tag"}
    with pytest.raises(ArtifactRefused, match="MLflow does not take what is said of it: Invalid tag"):
        tracking(lambda request: httpx.Response(400, json=body)).create_model("digits")


@pytest.mark.parametrize(
    ("status", "body"), [(500, "oops"), (502, "<html>"), (401, "no"), (400, "{}"), (429, "later")]
)
def test_mlflow_is_unavailable_when_it_answers_anything_else(status: int, body: str) -> None:
    """That says nothing about the file, which is tried again."""
    with pytest.raises(RegistryUnavailable, match=f"answered {status}"):
        tracking(lambda request: httpx.Response(status, text=body)).create_model("digits")


def test_mlflow_is_unavailable_when_it_does_not_answer() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(RegistryUnavailable, match="did not answer: refused"):
        tracking(nobody).begin(ATTEMPT, FACTS, 0)


def test_mlflow_is_unavailable_when_it_proxies_no_files() -> None:
    """Nothing is written to a path or bucket that only the server may know."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("runs/create"):
            return httpx.Response(200, json={"run": {"info": {"run_id": "r"}}})
        info = {"model_id": "m-1", "artifact_uri": "s3://bucket/1"}
        return httpx.Response(200, json={"model": {"info": info}})

    with pytest.raises(RegistryUnavailable, match=r"keeps files at 's3:'.*--serve-artifacts"):
        tracking(answer).begin(ATTEMPT, FACTS, 0)


def test_attempt_is_read_back_when_it_was_noted() -> None:
    assert read_attempt(ATTEMPT.text, "digits") == ATTEMPT


def test_name_of_the_logged_model_is_one_that_mlflow_takes() -> None:
    """MLflow allows fewer letters there than in a registered model's name."""
    asked: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        info = {"run_id": "r", "model_id": "m", "artifact_uri": "mlflow-artifacts:/1/models/m/artifacts"}
        return httpx.Response(200, json={"run": {"info": info}, "model": {"info": info}})

    logged = tracking(answer).begin(replace(ATTEMPT, model="digits.v2 %'x'"), FACTS, 0)
    assert asked[1]["name"] == "digits-v2 --x-"
    assert logged.location == "1/models/m/artifacts"


@pytest.mark.integration
def test_experiment_is_brought_back_when_somebody_deleted_it(place: Place, name: str) -> None:
    """MLflow keeps a deleted experiment's name taken."""
    made = Tracking(place.client)
    first = made.attempt("1", name)
    api = "/api/2.0/mlflow/experiments/delete"
    place.client.post(api, json={"experiment_id": first.experiment_id}).raise_for_status()
    assert made.attempt("2", name).experiment_id == first.experiment_id
    place.put(f"{name}.onnx", "good")
    assert [one.version for one in place.scan().outcomes] == ["1"]


@pytest.mark.integration
def test_tags_carry_the_environment_when_one_is_set(place: Place, name: str) -> None:
    """Each environment sees its own tags, and knows its own versions by them."""
    staging = Registry(place.client, lambda model: True, "staging")
    place.put(f"{name}.onnx", "good")
    place.put(f"{name}.model.yaml", "tags: {stage: trial}\nowner: me\n")
    publisher = Publisher(Tracking(place.client), staging, place.clock, "tests")
    place.adapt = lambda means: replace(means, registry=staging, publisher=publisher)
    assert [str(one.result) for one in place.scan().outcomes] == ["registered"]
    [version] = staging.versions(name)
    assert version.tags["stage"] == "trial"
    assert staging.registered_model(name).tags["signalbox.owner"] == "me"
    [plain] = place.registry.versions(name)
    assert "staging-signalbox.digest" in plain.tags


@pytest.mark.integration
def test_evaluation_set_is_stored_once_when_many_versions_share_it(place: Place, name: str) -> None:
    """It lies under its digest; a torn upload is made good."""
    file = Path(place.home) / "set.npz"
    file.write_bytes(b"rows")
    made = Tracking(place.client)
    uri = made.keep_evaluation(file, "0" * 60 + name[-4:].rjust(4, "0"))
    assert made.keep_evaluation(file, uri.split("/")[-1].removesuffix(".npz")) == uri
    stored = place.client.get("/api/2.0/mlflow-artifacts/artifacts/" + uri.removeprefix("mlflow-artifacts:/"))
    assert stored.content == b"rows"
