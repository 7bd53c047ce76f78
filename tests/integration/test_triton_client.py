"""The Open Inference Protocol as its most used client speaks it: `tritonclient.http`, untouched."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import ServingProcess

pytestmark = pytest.mark.integration

X = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]], np.float32)


@dataclass(frozen=True, slots=True)
class Served:
    """A replica with an ONNX model (champion 2, previous 1) and a TorchScript model (champion 1)."""

    onnx: str
    torch: str
    client: InferenceServerClient


@pytest.fixture(scope="module")
def served(logged_once: MlflowRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    logged_once.server.start()
    onnx = logged_once.model("onnx:1", "onnx:2", "onnx:3", prefix="triton")
    torch = logged_once.model("torch:1", prefix="triton")
    onnx.point("1")
    torch.point("1")
    home, models = tmp_path_factory.mktemp("triton"), f"{onnx.name},{torch.name}"
    serving = ServingProcess(home, logged_once.server.url, models)
    try:
        serving.start_ready()
        onnx.point("2")
        serving.wait_for(onnx.name, "2")
        serving.wait_for(onnx.name, "1", "previous")
        client = InferenceServerClient(f"127.0.0.1:{serving.port}")
        yield Served(onnx.name, torch.name, client)
        client.close()
        serving.assert_nothing_lost()
    finally:
        serving.kill()


def tensor(array: NDArray[np.generic] = X, *, name: str = "x", datatype: str = "FP32") -> InferInput:
    given = InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=False)
    return given


def refusal(served: Served, model: str, *inputs: InferInput, version: str = "") -> tuple[str, str]:
    """(status, sentence) of an inference that must be refused."""
    with pytest.raises(InferenceServerException) as caught:
        served.client.infer(model, list(inputs), model_version=version)
    return str(caught.value.status()), str(caught.value.message())


def test_client_finds_server_healthy_when_it_runs(served: Served) -> None:
    """Live, ready, and every model and version ready."""
    client = served.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(served.onnx)
    assert client.is_model_ready(served.onnx, "1")
    assert client.is_model_ready(served.onnx, "champion")
    assert not client.is_model_ready(served.onnx, "3")
    assert not client.is_model_ready("unheard-of")


def test_client_reads_metadata_when_asked_by_name_number_and_alias(served: Served) -> None:
    """Names, datatypes and shapes; an alias resolves to what answers now."""
    server = served.client.get_server_metadata()
    assert server["name"] == "signalbox"
    assert "model_repository" in server["extensions"]
    by_name = served.client.get_model_metadata(served.onnx)
    assert by_name["name"] == served.onnx
    assert by_name["versions"] == ["1", "2"]
    assert by_name["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert by_name["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]
    for address in ("2", "champion"):
        assert served.client.get_model_metadata(served.onnx, address) == by_name
    torch = served.client.get_model_metadata(served.torch)
    assert torch["platform"] == "pytorch_torchscript"
    assert [output["name"] for output in torch["outputs"]] == ["OUTPUT__0"]


def test_client_lists_repository_when_asked(served: Served) -> None:
    """Every served version is ready."""
    index = served.client.get_model_repository_index()
    ready = {(entry["name"], entry["version"]) for entry in index if entry["state"] == "READY"}
    assert ready == {(served.onnx, "1"), (served.onnx, "2"), (served.torch, "1")}


@pytest.mark.parametrize(
    ("address", "added", "version"),
    [("", 2.0, "2"), ("2", 2.0, "2"), ("champion", 2.0, "2"), ("1", 1.0, "1"), ("previous", 1.0, "1")],
)
def test_client_infers_when_asking_by_any_address(
    served: Served, address: str, added: float, version: str
) -> None:
    """JSON tensors in; the client's default wish for binary outputs is answered with JSON it reads."""
    result = served.client.infer(served.onnx, [tensor()], model_version=address, request_id="mine.1")
    np.testing.assert_allclose(result.as_numpy("y"), X + added)
    answer = result.get_response()
    assert (answer["model_version"], answer["id"]) == (version, "mine.1")


def test_client_infers_when_it_names_its_outputs(served: Served) -> None:
    """Requested outputs, as JSON and by the client's binary default."""
    for binary in (False, True):
        wanted = [InferRequestedOutput("OUTPUT__0", binary_data=binary)]
        result = served.client.infer(served.torch, [tensor()], outputs=wanted)
        np.testing.assert_allclose(result.as_numpy("OUTPUT__0"), X + 1.0)


def test_client_infers_when_asynchronous(served: Served) -> None:
    """Requests that overlap on several connections get their own answers."""
    with_room = InferenceServerClient(served.client._parsed_url.netloc, concurrency=4)
    pending = [with_room.async_infer(served.onnx, [tensor(X * number)]) for number in range(8)]
    for number, request in enumerate(pending):
        np.testing.assert_allclose(request.get_result().as_numpy("y"), X * number + 2.0)
    with_room.close()


def test_client_is_told_what_exists_when_it_names_something_else(served: Served) -> None:
    """Unknown model, version and alias: 404 with what there is."""
    status, sentence = refusal(served, "unheard-of", tensor())
    assert status == "404"
    assert served.onnx in sentence
    assert served.torch in sentence
    for address in ("3", "99", "production"):
        status, sentence = refusal(served, served.onnx, tensor(), version=address)
        assert status == "404"
        assert f"'{address}'" in sentence
        assert "champion, previous, 1, 2" in sentence
    with pytest.raises(InferenceServerException, match="unheard-of"):
        served.client.get_model_metadata("unheard-of")


def test_client_is_told_which_tensor_when_its_request_does_not_fit(served: Served) -> None:
    """Wrong name, dtype, shape or output: 400 naming the tensor."""
    wrong = {
        "z": [tensor(name="z")],
        "x": [tensor(X.astype(np.int64), datatype="INT64")],
        "x ": [tensor(np.ones((2, 4), np.float32))],
        " x": [tensor(np.ones(3, np.float32))],
        "x  ": [],
    }
    for name, inputs in wrong.items():
        status, sentence = refusal(served, served.onnx, *inputs)
        assert status == "400"
        assert f"'{name.strip()}'" in sentence, sentence
    with pytest.raises(InferenceServerException, match="'nothing'"):
        served.client.infer(served.onnx, [tensor()], outputs=[InferRequestedOutput("nothing")])


def test_client_is_told_to_send_json_when_it_sends_binary(served: Served) -> None:
    """Binary tensors are refused in words that name the client's own option."""
    given = InferInput("x", list(X.shape), "FP32")
    given.set_data_from_numpy(X)
    status, sentence = refusal(served, served.onnx, given)
    assert status == "400"
    assert "binary_data=False" in sentence
