"""The Open Inference Protocol as its most used client speaks it: `tritonclient`, untouched.

First its synchronous HTTP client in detail, then all four: HTTP and gRPC, synchronous and asynchronous.
"""

import gc
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from queue import Queue
from typing import Any
from warnings import catch_warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.integration.triton import KINDS, Client, Served, X, client_of, serving_all
from tests.mlflow_registry import MlflowRegistry
from tests.story import story

pytestmark = [
    pytest.mark.integration,
    # The asynchronous HTTP client does not read a body of which it only wants the status. Where that comes
    # after the head, the connection is left to the garbage collection of some later test.
    pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning"),
]


@dataclass(frozen=True, slots=True)
class Known:
    """What the tests below ask: two models, by one synchronous client."""

    onnx: str
    torch: str
    client: InferenceServerClient


@pytest.fixture(scope="module")
def replica(logged_once: MlflowRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_all(logged_once, tmp_path_factory.mktemp("triton")) as replica:
        yield replica
    with catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # connections of the clients, see above


@pytest.fixture(scope="module")
def served(replica: Served) -> Iterator[Known]:
    client = InferenceServerClient(replica.http_address)
    yield Known(replica.onnx, replica.torch, client)
    client.close()


def tensor(array: NDArray[np.generic] = X, *, name: str = "x", datatype: str = "FP32") -> InferInput:
    given = InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=False)
    return given


def refusal(served: Known, model: str, *inputs: InferInput, version: str = "") -> tuple[str, str]:
    """(status, sentence) of an inference that must be refused."""
    with pytest.raises(InferenceServerException) as caught:
        served.client.infer(model, list(inputs), model_version=version)
    return str(caught.value.status()), str(caught.value.message())


def test_client_finds_server_healthy_when_it_runs(served: Known) -> None:
    """Live, ready, and every model and version ready."""
    client = served.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(served.onnx)
    assert client.is_model_ready(served.onnx, "1")
    assert client.is_model_ready(served.onnx, "champion")
    assert not client.is_model_ready(served.onnx, "3")
    assert not client.is_model_ready("unheard-of")


def test_client_reads_metadata_when_asked_by_name_number_and_alias(served: Known) -> None:
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


def test_client_lists_repository_when_asked(served: Known) -> None:
    """Every served version is ready."""
    index = served.client.get_model_repository_index()
    ready = {(entry["name"], entry["version"]) for entry in index if entry["state"] == "READY"}
    assert ready >= {(served.onnx, "1"), (served.onnx, "2"), (served.torch, "1")}


@pytest.mark.parametrize(
    ("address", "added", "version"),
    [("", 2.0, "2"), ("2", 2.0, "2"), ("champion", 2.0, "2"), ("1", 1.0, "1"), ("previous", 1.0, "1")],
)
def test_client_infers_when_asking_by_any_address(
    served: Known, address: str, added: float, version: str
) -> None:
    """JSON tensors in; the client's default wish for binary outputs is granted."""
    result = served.client.infer(served.onnx, [tensor()], model_version=address, request_id="mine.1")
    np.testing.assert_allclose(result.as_numpy("y"), X + added)
    answer = result.get_response()
    assert (answer["model_version"], answer["id"]) == (version, "mine.1")


def test_client_infers_when_it_names_its_outputs(served: Known) -> None:
    """Requested outputs, as JSON and by the client's binary default."""
    for binary in (False, True):
        wanted = [InferRequestedOutput("OUTPUT__0", binary_data=binary)]
        result = served.client.infer(served.torch, [tensor()], outputs=wanted)
        np.testing.assert_allclose(result.as_numpy("OUTPUT__0"), X + 1.0)


def test_client_infers_when_asynchronous(served: Known) -> None:
    """Requests that overlap on several connections get their own answers."""
    with_room = InferenceServerClient(served.client._parsed_url.netloc, concurrency=4)
    pending = [with_room.async_infer(served.onnx, [tensor(X * number)]) for number in range(8)]
    for number, request in enumerate(pending):
        np.testing.assert_allclose(request.get_result().as_numpy("y"), X * number + 2.0)
    with_room.close()


def test_client_is_told_what_exists_when_it_names_something_else(served: Known) -> None:
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


def test_client_is_told_which_tensor_when_its_request_does_not_fit(served: Known) -> None:
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


@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_reads_what_the_server_is_and_has(replica: Served, kind: str) -> None:
    """Health, metadata, configuration, repository, statistics."""
    async with client_of(replica, kind) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(replica.onnx, "previous")
        assert not await client.is_model_ready(replica.onnx, "3")
        assert not await client.is_model_ready("unheard-of")
        server = await client.told("get_server_metadata")
        assert (server["name"], "statistics" in server["extensions"]) == ("signalbox", True)
        metadata = await client.told("get_model_metadata", replica.onnx, "champion")
        assert (metadata["versions"], metadata["platform"]) == (["1", "2"], "onnx_onnxv1")
        assert [tensor["datatype"] for tensor in metadata["inputs"]] == ["FP32"]
        config = await client.told("get_model_config", replica.onnx)
        config = config if client.is_http else config["config"]
        assert (config["backend"], config["input"][0]["data_type"]) == ("onnxruntime", "TYPE_FP32")
        index = await client.told("get_model_repository_index")
        entries = index if client.is_http else index["models"]
        assert (replica.onnx, "2", "READY") in {(e["name"], e["version"], e["state"]) for e in entries}
        for arguments in ((replica.onnx, "2"), (replica.onnx,), ()):
            stats = await client.told("get_inference_statistics", *arguments)
            [told] = [
                entry
                for entry in stats["model_stats"]
                if (entry["name"], entry["version"]) == (replica.onnx, "2")
            ]
            assert int(told["inference_stats"]["success"]["count"]) > 0


@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_infers(replica: Served, kind: str) -> None:
    """Defaults, every option, requested outputs, ranked classes."""
    async with client_of(replica, kind) as client:
        result = await client.infer(replica.onnx, [client.tensor(X)])
        np.testing.assert_array_equal(result.as_numpy("y"), X + 2)
        result = await client.infer(
            replica.onnx,
            [client.tensor(X)],
            model_version="previous",
            outputs=[client.output("y")],
            request_id="mine",
            sequence_id=7,
            sequence_start=True,
            sequence_end=True,
            priority=1,
            timeout=5_000_000,
            headers={"x-request-id": "traced"},
            parameters={"note": "kept to itself"},
        )
        np.testing.assert_array_equal(result.as_numpy("y"), X + 1)
        told = result.get_response() if client.is_http else result.get_response(as_json=True)
        assert (told["id"], told["model_version"]) == ("mine", "1")
        result = await client.infer(replica.onnx, [client.tensor(X)], outputs=[client.output("y", classes=2)])
        ranked = [[text.decode() for text in row] for row in result.as_numpy("y").tolist()]
        assert ranked == [["4.000000:2", "2.500000:0"], ["5.000000:0", "3.000000:2"]]


@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_sends_and_reads_text_and_half_precision(replica: Served, kind: str) -> None:
    """The datatypes with rules of their own."""
    text = np.array([["ü", "", "long " * 50]], np.object_)
    half = np.array([[0.5, np.inf, -0.0]], np.float16)
    async with client_of(replica, kind) as client:
        result = await client.infer(replica.text, [client.tensor(text, "BYTES")])
        assert [item.decode() for item in result.as_numpy("y").ravel()] == text.ravel().tolist()
        result = await client.infer(replica.half, [client.tensor(half, "FP16")])
        np.testing.assert_array_equal(result.as_numpy("y"), half)
        if client.is_http:
            as_json = [client.output("y", binary=False)]
            result = await client.infer(
                replica.text, [client.tensor(text, "BYTES", binary=False)], outputs=as_json
            )
            assert result.as_numpy("y").ravel().tolist() == text.ravel().tolist()
            with pytest.raises(InferenceServerException, match="binary tensors only"):
                await client.infer(replica.half, [client.tensor(half, "FP16")], outputs=as_json)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_may_compress(replica: Served, kind: str, algorithm: str) -> None:
    """Requests and, over HTTP, answers; binary and JSON, small and large."""
    async with client_of(replica, kind) as client:
        options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
        if not client.is_http:
            options = {"compression_algorithm": algorithm}
        for rows in (2, 30_000):
            array = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
            for binary in (True, False) if client.is_http and rows == 2 else (True,):
                result = await client.infer(
                    replica.onnx,
                    [client.tensor(array, binary=binary)],
                    outputs=[client.output("y", binary=binary)],
                    **options,
                )
                np.testing.assert_allclose(result.as_numpy("y"), array + 2, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_loads_and_unloads_by_hand(replica: Served, kind: str) -> None:
    """With the admin key; what an alias names stays; nobody brings files of their own."""
    by_number = f"{replica.onnx}/versions/3"
    async with client_of(replica, kind) as client:
        with pytest.raises(InferenceServerException, match="key"):
            await client.load_model(by_number)
        await client.load_model(by_number, headers=replica.key)
        assert await client.is_model_ready(replica.onnx, "3")
        result = await client.infer(replica.onnx, [client.tensor(X)], model_version="3")
        np.testing.assert_array_equal(result.as_numpy("y"), X + 3)
        await client.unload_model(by_number, headers=replica.key)
        assert not await client.is_model_ready(replica.onnx, "3")
        await client.load_model(replica.onnx, headers=replica.key)
        with pytest.raises(InferenceServerException, match="champion names version 2"):
            await client.unload_model(replica.onnx, headers=replica.key)
        with pytest.raises(InferenceServerException, match="registry only"):
            await client.load_model(replica.onnx, headers=replica.key, config="{}")
        with pytest.raises(InferenceServerException, match="registry only"):
            await client.load_model(
                replica.onnx, headers=replica.key, config="{}", files={"file:1/model.onnx": b"x"}
            )


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's advice to its caller
@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_reads_refusals_in_words(replica: Served, kind: str) -> None:
    """Status and sentence, whatever was wrong."""
    statuses = {"unknown": "404", "wide": "400", "late": "504", "large": "413"}
    if not kind.startswith("http"):
        statuses = {
            "unknown": "StatusCode.NOT_FOUND",
            "wide": "StatusCode.INVALID_ARGUMENT",
            "late": "StatusCode.DEADLINE_EXCEEDED",
            "large": "StatusCode.RESOURCE_EXHAUSTED",
        }
    async with client_of(replica, kind) as client:
        wide, large = np.ones((2, 4), np.float32), np.zeros((1 << 20, 3), np.float32)
        asked: dict[str, tuple[str, Any, dict[str, Any], str]] = {
            "unknown": ("unheard-of", X, {}, replica.onnx),
            "wide": (replica.onnx, wide, {}, "tensor 'x': shape"),
            "late": (replica.onnx, X, {"timeout": 1}, "deadline"),
            "large": (replica.onnx, large, {}, "larger"),
        }
        for what, (model, array, options, sentence) in asked.items():
            with pytest.raises(InferenceServerException) as caught:
                await client.infer(model, [client.tensor(array)], **options)
            assert caught.value.status() == statuses[what], what
            assert sentence in str(caught.value.message())


@pytest.mark.parametrize("kind", KINDS)
@story
async def test_every_client_is_told_what_is_not_offered(replica: Served, kind: str) -> None:
    """Shared memory, tracing and log settings: refused in words, and nothing breaks."""
    async with client_of(replica, kind) as client:
        refusal = r"no such endpoint|not offered|key is needed"
        for call, arguments in (
            ("get_system_shared_memory_status", ()),
            ("register_system_shared_memory", ("region", "/key", 64)),
            ("unregister_system_shared_memory", ()),
            ("get_cuda_shared_memory_status", ()),
            ("get_trace_settings", ()),
            ("get_log_settings", ()),
        ):
            with pytest.raises(InferenceServerException, match=refusal):
                await getattr(client, call)(*arguments)
        given = client.module.InferInput("x", [2, 3], "FP32")
        given.set_shared_memory("region", X.nbytes)
        with pytest.raises(InferenceServerException, match="shared memory"):
            await client.infer(replica.onnx, [given])
        assert await client.is_server_live()


@story
async def test_bodies_made_and_read_apart_from_the_client_pass(replica: Served) -> None:
    """The HTTP clients' own encoder and decoder, around a plain request."""
    async with client_of(replica, "http") as client:
        body, json_bytes = client.raw.generate_request_body([client.tensor(X)])
        answer = replica.serving.call(
            "POST",
            f"/v2/models/{replica.onnx}/infer",
            content=body,
            headers={"Inference-Header-Content-Length": str(json_bytes)},
        )
        length = int(answer.headers["inference-header-content-length"])
        result = client.raw.parse_response_body(answer.content, header_length=length)
        np.testing.assert_array_equal(result.as_numpy("y"), X + 2)


@story
async def test_grpc_client_infers_with_callbacks_and_may_cancel(replica: Served) -> None:
    """`async_infer` of the synchronous client."""
    async with client_of(replica, "grpc") as client:
        answers: Queue[tuple[Any, Any]] = Queue()
        for number in range(8):
            client.raw.async_infer(
                replica.onnx,
                [client.tensor(X * number)],
                lambda result, error: answers.put((result, error)),
                request_id=str(number),
            )
        for _ in range(8):
            result, error = answers.get(timeout=20)
            assert error is None
            number = int(result.get_response().id)
            np.testing.assert_array_equal(result.as_numpy("y"), X * number + 2)
        call = client.raw.async_infer(
            replica.onnx, [client.tensor(X)], lambda result, error: answers.put((result, error))
        )
        call.cancel()
        answers.get(timeout=20)
        assert await client.is_server_live()


def asked_in_a_stream(client: Client, replica: Served) -> list[dict[str, Any]]:
    good = {"model_name": replica.onnx, "inputs": [client.tensor(X)]}
    bad = {"model_name": "unheard-of", "inputs": [client.tensor(X)]}
    return [good | {"request_id": "1"}, bad | {"request_id": "2"}, good | {"request_id": "3"}]


def check_streamed(answers: list[tuple[Any, Any]]) -> None:
    """Two answers around an error, in order."""
    (first, none), (_, error), (third, nothing) = answers
    assert (none, nothing) == (None, None)
    assert "unheard-of" in str(error)
    assert [first.get_response().id, third.get_response().id] == ["1", "3"]
    np.testing.assert_array_equal(third.as_numpy("y"), X + 2)


@story
async def test_grpc_clients_infer_over_a_stream(replica: Served) -> None:
    """Both of them."""
    async with client_of(replica, "grpc") as client:
        answers: Queue[tuple[Any, Any]] = Queue()
        client.raw.start_stream(lambda result, error: answers.put((result, error)))
        for asked in asked_in_a_stream(client, replica):
            client.raw.async_stream_infer(**asked)
        check_streamed([answers.get(timeout=20) for _ in range(3)])
        client.raw.stop_stream()
    async with client_of(replica, "grpc-aio") as client:

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for asked in asked_in_a_stream(client, replica):
                yield asked

        check_streamed([answer async for answer in client.raw.stream_infer(requests())])
