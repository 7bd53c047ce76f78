"""The gRPC service over a whole server: every call, its answer and its refusal."""

import gzip
import struct
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.protocol.raw_data import encode_raw
from serving.rpc.generated import inference_pb2 as pb
from serving.rpc.server import RpcServer
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder, onnx_echo, onnx_nan, onnx_raises_on_negative
from tests.rpc.line import ADMIN, line_to
from tests.station import station
from tests.story import eventually, story

ROW = np.array([[1.0, 2.0, 3.0]], np.float32)
RAW_X = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.point("m", "2")
    double.point("m", "1", "shadow")
    return double


def raw_request(array: Any = ROW, model: str = "m", **fields: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=array.shape)
    return pb.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[array.tobytes()], **fields
    )


def typed_request(*row: float, model: str = "m", **fields: Any) -> pb.ModelInferRequest:
    contents = pb.InferTensorContents(fp32_contents=row)
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="x", datatype="FP32", shape=[1, len(row)], contents=contents
    )
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], **fields)


@story
async def test_server_tells_of_itself_and_its_models(home: Path, double: MlflowDouble) -> None:
    """What REST tells, in messages."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        await server.serves("1", address="shadow")
        await server.becomes_ready()
        assert (await line.call("ServerLive")).live
        assert (await line.call("ServerReady")).ready
        assert [await line.health(service) for service in ("", "inference.GRPCInferenceService")] == [1, 1]
        told = await line.call("ServerMetadata")
        assert (told.name, "binary_tensor_data" in told.extensions) == ("signalbox", True)
        for version, is_ready in (("", True), ("2", True), ("champion", True), ("3", False), ("no", False)):
            assert (await line.call("ModelReady", name="m", version=version)).ready is is_ready
        assert not (await line.call("ModelReady", name="nope")).ready
        metadata = await line.call("ModelMetadata", name="m", version="shadow")
        assert (metadata.name, list(metadata.versions), metadata.platform) == ("m", ["1", "2"], "onnx_onnxv1")
        [tensor] = metadata.inputs
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [-1, 3])
        config = (await line.call("ModelConfig", name="m")).config
        assert (config.backend, config.input[0].data_type) == ("onnxruntime", pb.TYPE_FP32)
        assert list(config.version_policy.specific.versions) == [1, 2]
        index = (await line.call("RepositoryIndex", ready=True)).models
        assert [(entry.name, entry.version, entry.state) for entry in index] == [
            ("m", "1", "READY"),
            ("m", "2", "READY"),
        ]


@pytest.mark.parametrize(("address", "added"), [("", 2.0), ("2", 2.0), ("champion", 2.0), ("shadow", 1.0)])
@story
async def test_infer_answers_in_the_form_it_was_asked(
    home: Path, double: MlflowDouble, address: str, added: float
) -> None:
    """Raw to raw, typed to typed; with who gave the answer."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        await server.serves("1", address="shadow")
        answer = await line.send("ModelInfer", raw_request(model_version=address, id="mine"))
        assert (answer.model_name, answer.model_version, answer.id) == ("m", str(int(added)), "mine")
        [output] = answer.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [1, 3])
        assert answer.raw_output_contents == [(ROW + np.float32(added)).tobytes()]
        assert not output.HasField("contents")
        answer = await line.send("ModelInfer", typed_request(1, 2, 3, model_version=address))
        assert list(answer.outputs[0].contents.fp32_contents) == [1 + added, 2 + added, 3 + added]
        assert not answer.raw_output_contents
        assert answer.parameters["health"].string_param


@story
async def test_infer_tells_who_answered_and_under_which_id(home: Path, double: MlflowDouble) -> None:
    """As trailing metadata, what REST sends as headers."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        call = line.started("ModelInfer", raw_request(), metadata=(("x-request-id", "r-1"),))
        await call
        told = dict(await call.trailing_metadata())
        assert told == {"x-request-id": "r-1", "x-model-version": "2", "x-model-variant": "champion"}


@pytest.mark.parametrize(
    ("datatype", "contents", "raw"),
    [
        ("BOOL", {"bool_contents": [True, False]}, b"\x01\x00"),
        ("INT8", {"int_contents": [-128, 127]}, struct.pack("<2b", -128, 127)),
        ("INT16", {"int_contents": [-1, 2]}, struct.pack("<2h", -1, 2)),
        ("INT32", {"int_contents": [-1, 2]}, struct.pack("<2i", -1, 2)),
        ("INT64", {"int64_contents": [-(2**63), 2]}, struct.pack("<2q", -(2**63), 2)),
        ("UINT8", {"uint_contents": [0, 255]}, b"\x00\xff"),
        ("UINT16", {"uint_contents": [0, 65535]}, struct.pack("<2H", 0, 65535)),
        ("UINT32", {"uint_contents": [0, 2**32 - 1]}, struct.pack("<2I", 0, 2**32 - 1)),
        ("UINT64", {"uint64_contents": [0, 2**64 - 1]}, struct.pack("<2Q", 0, 2**64 - 1)),
        ("FP32", {"fp32_contents": [0.5, float("inf")]}, struct.pack("<2f", 0.5, float("inf"))),
        ("FP64", {"fp64_contents": [0.1, float("-inf")]}, struct.pack("<2d", 0.1, float("-inf"))),
        ("BYTES", {"bytes_contents": ["ü".encode(), b""]}, b"\x02\0\0\0\xc3\xbc\0\0\0\0"),
        ("FP16", None, np.array([0.5, np.inf], np.float16).tobytes()),
    ],
)
@story
async def test_every_datatype_passes_unchanged(
    home: Path,
    double: MlflowDouble,
    tmp_path: Path,
    datatype: str,
    contents: dict[str, Any] | None,
    raw: bytes,
) -> None:
    """Raw and typed; half precision raw only."""
    onnx_type = {"BOOL": 9, "BYTES": 8, "FP16": 10, "FP32": 1, "FP64": 11} | {
        "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "UINT32": 12, "UINT64": 13
    }  # fmt: skip
    double.add("echo", onnx_echo(tmp_path / "models" / "echo", onnx_type[datatype], ("n",)))
    double.point("echo", "1")
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[2])
    async with station(home, double) as server, line_to(server) as line:

        async def is_ready() -> bool:
            return bool((await line.call("ModelReady", name="echo")).ready)

        await eventually(is_ready, "the echo answers")
        request = pb.ModelInferRequest(model_name="echo", inputs=[tensor], raw_input_contents=[raw])
        assert (await line.send("ModelInfer", request)).raw_output_contents == [raw]
        tensor.contents.CopyFrom(pb.InferTensorContents(**contents or {"fp32_contents": [0.5, 1.0]}))
        request = pb.ModelInferRequest(model_name="echo", inputs=[tensor])
        if contents is None:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await line.send("ModelInfer", request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "binary tensors only" in (caught.value.details() or "")
        else:
            answer = await line.send("ModelInfer", request)
            assert answer.outputs[0].contents == tensor.contents


def spoilt(**changes: Any) -> pb.ModelInferRequest:
    """A good raw request with some of its parts replaced."""
    parts: dict[str, Any] = {"model_name": "m", "inputs": [RAW_X], "raw_input_contents": [ROW.tobytes()]}
    return pb.ModelInferRequest(**parts | changes)


def an_input(**changes: Any) -> pb.ModelInferRequest.InferInputTensor:
    parts: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    return pb.ModelInferRequest.InferInputTensor(**parts | changes)


def a_parameter(**value: Any) -> dict[str, pb.InferParameter]:
    return {"classification": pb.InferParameter(**value)}


WANTED = pb.ModelInferRequest.InferRequestedOutputTensor
REFUSALS = [
    (spoilt(model_name="nope"), "NOT_FOUND", "available: m"),
    (spoilt(model_version="9"), "NOT_FOUND", "available: champion"),
    (spoilt(inputs=[]), "INVALID_ARGUMENT", "1 entries for 0 inputs"),
    (
        spoilt(raw_input_contents=[]),
        "INVALID_ARGUMENT",
        "tensor 'x': shape [1, 3] of FP32 takes 12 bytes, not 0",
    ),
    (spoilt(raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "2 entries for 1 inputs"),
    (spoilt(raw_input_contents=[b"12345"]), "INVALID_ARGUMENT", "tensor 'x': shape [1, 3] of FP32 takes 12"),
    (spoilt(inputs=[an_input(name="z")]), "INVALID_ARGUMENT", "tensor 'z': unknown input"),
    (spoilt(inputs=[an_input(datatype="FP64")]), "INVALID_ARGUMENT", "tensor 'x': datatype must be FP32"),
    (spoilt(inputs=[an_input(shape=[-1, 3])]), "INVALID_ARGUMENT", "tensor 'x': 'shape' must be"),
    (spoilt(inputs=[an_input(shape=[2**62, 3])]), "INVALID_ARGUMENT", "tensor 'x': shape"),
    (
        spoilt(inputs=[an_input(contents=pb.InferTensorContents(fp32_contents=[1, 2, 3]))]),
        "INVALID_ARGUMENT",
        "tensor 'x': has contents and raw contents",
    ),
    (
        spoilt(
            inputs=[an_input(parameters={"shared_memory_region": pb.InferParameter(string_param="r")})],
            raw_input_contents=[],
        ),
        "INVALID_ARGUMENT",
        "tensor 'x': shared memory",
    ),
    (spoilt(outputs=[WANTED(name="q")]), "INVALID_ARGUMENT", "tensor 'q': unknown output; the model gives y"),
    (spoilt(outputs=[WANTED(name="y"), WANTED(name="y")]), "INVALID_ARGUMENT", "asked for more than once"),
    (
        spoilt(outputs=[WANTED(name="y", parameters=a_parameter(string_param="3"))]),
        "INVALID_ARGUMENT",
        "'classification' must be",
    ),
    (
        spoilt(parameters={"timeout": pb.InferParameter(string_param="soon")}),
        "INVALID_ARGUMENT",
        "parameter 'timeout'",
    ),
    (spoilt(parameters={"timeout": pb.InferParameter(int64_param=1)}), "DEADLINE_EXCEEDED", "deadline"),
]


@story
async def test_infer_is_refused_by_the_one_table(home: Path, double: MlflowDouble) -> None:
    """With the sentence REST gives and the status the table names."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        for request, code, sentence in REFUSALS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await line.send("ModelInfer", request)
            assert caught.value.code().name == code, request
            assert sentence in (caught.value.details() or "")
            told: Any = caught.value.trailing_metadata()
            assert dict(told)["x-request-id"]


@story
async def test_infer_keeps_what_a_model_raised_to_itself(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """INTERNAL, with the id under which the log has the rest."""
    double.add("raises", onnx_raises_on_negative(tmp_path / "models" / "raises"))
    double.point("raises", "1")
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("1", model="raises")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await line.send("ModelInfer", raw_request(-ROW, "raises"))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert (caught.value.details() or "").startswith("version 1 of 'raises' failed on this request")


@story
async def test_infer_passes_what_is_no_number(home: Path, double: MlflowDouble, tmp_path: Path) -> None:
    """NaN in, NaN out, raw and typed."""
    double.add("nan", onnx_nan(tmp_path / "models" / "nan"))
    double.point("nan", "1")
    async with station(home, double) as server, line_to(server) as line:

        async def is_ready() -> bool:
            return bool((await line.call("ModelReady", name="nan")).ready)

        await eventually(is_ready, "the model answers")
        answer = await line.send("ModelInfer", raw_request(np.full((1, 3), np.nan, np.float32), "nan"))
        assert np.isnan(np.frombuffer(answer.raw_output_contents[0], np.float32)).all()
        answer = await line.send("ModelInfer", typed_request(0, 0, 0, model="nan"))
        assert np.isnan(answer.outputs[0].contents.fp32_contents).all()


@story
async def test_champion_is_rolled_back_when_only_its_answers_are_no_numbers(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """Raw and typed tensors carry NaN, but `previous` has numbers for the same input, which callers get."""
    double.add("w", onnx_echo(tmp_path / "models" / "echo"), onnx_nan(tmp_path / "models" / "nan"))
    double.point("w", "1")
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("1", model="w")
        double.point("w", "2")
        await server.serves("2", model="w")
        for _ in range(3):
            answer = await line.send("ModelInfer", raw_request(ROW * 0, "w"))
            assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [0, 0, 0]
            answer = await line.send("ModelInfer", typed_request(0, 0, 0, model="w"))
            assert list(answer.outputs[0].contents.fp32_contents) == [0, 0, 0]
        await server.names("1", model="w")
        await eventually(lambda: "rolled_back" in server.notices(), "people are told")


@story
async def test_output_is_ranked_when_its_classes_are_asked_for(home: Path, double: MlflowDouble) -> None:
    """As over REST."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        request = raw_request(outputs=[WANTED(name="y", parameters=a_parameter(int64_param=2))])
        answer = await line.send("ModelInfer", request)
        assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
        assert answer.raw_output_contents[0] == bytes(
            encode_raw("y", np.array(["5.000000:2", "4.000000:1"], np.object_))
        )


@story
async def test_stream_answers_every_message_in_order(home: Path, double: MlflowDouble) -> None:
    """An error answers its own message, and the stream goes on."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        wants_end = {"triton_enable_empty_final_response": pb.InferParameter(bool_param=True)}
        asked = [
            raw_request(ROW, id="a"),
            raw_request(ROW, model="nope", id="b"),
            raw_request(ROW * 2, id="c", parameters=wants_end),
        ]
        first, second, third = await line.stream(asked)
        assert (first.infer_response.id, first.error_message) == ("a", "")
        assert (second.infer_response.id, "'nope' is not served" in second.error_message) == ("b", True)
        assert third.infer_response.raw_output_contents == [(ROW * 2 + np.float32(2)).tobytes()]
        assert third.infer_response.parameters["triton_final_response"].bool_param


@story
async def test_statistics_count_both_transports(home: Path, double: MlflowDouble) -> None:
    """One version, one account."""
    async with station(home, double, probe_seconds=600) as server, line_to(server) as line:
        await server.serves("2")
        await server.becomes_ready()  # its own probe is over then

        async def counted() -> int:
            told = await line.call("ModelStatistics", name="m", version="2")
            return int(told.model_stats[0].inference_stats.success.count)

        before = await counted()
        await line.send("ModelInfer", raw_request())
        await server.infer(1, 2, 3)
        assert await counted() == before + 2
        assert {stat.version for stat in (await line.call("ModelStatistics")).model_stats} >= {"2"}


@story
async def test_versions_come_and_go_by_the_admins_word(home: Path, double: MlflowDouble) -> None:
    """What an alias names stays; files and configurations are refused."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        three = {"version": pb.ModelRepositoryParameter(string_param="3")}
        loading: dict[str, Any] = {"model_name": "m", "parameters": three}
        code, _ = await line.refused("RepositoryModelLoad", **loading)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        await line.call("RepositoryModelLoad", metadata=ADMIN, **loading)
        assert (await line.call("ModelReady", name="m", version="3")).ready
        await line.call("RepositoryModelUnload", metadata=ADMIN, **loading)
        assert not (await line.call("ModelReady", name="m", version="3")).ready
        code, sentence = await line.refused("RepositoryModelUnload", metadata=ADMIN, model_name="m")
        assert (code.name, "champion names version 2" in sentence) == ("FAILED_PRECONDITION", True)
        with_config = {"config": pb.ModelRepositoryParameter(string_param="{}")}
        code, sentence = await line.refused(
            "RepositoryModelLoad", metadata=ADMIN, model_name="m", parameters=with_config
        )
        assert (code.name, "registry only" in sentence) == ("INVALID_ARGUMENT", True)


@story
async def test_key_is_taken_from_either_header(home: Path, double: MlflowDouble) -> None:
    """Where inference needs one; a wrong one is refused, and health needs none."""
    from tests.homes import KEY

    async with station(home, double, require_infer_key=True) as server, line_to(server) as line:

        async def is_ready() -> bool:
            return bool((await line.call("ModelReady", name="m")).ready)

        await eventually(is_ready, "the model answers")
        for metadata in ((), (("x-api-key", "wrong"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await line.send("ModelInfer", raw_request(), metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            [answer] = await line.stream([raw_request()], metadata=metadata)
            assert "key" in answer.error_message
        for metadata in (ADMIN, (("authorization", f"Bearer {KEY}"),)):
            assert (await line.send("ModelInfer", raw_request(), metadata=metadata)).model_version == "2"
        await server.becomes_ready()
        assert await line.health() == 1


@story
async def test_health_says_not_serving_while_draining(home: Path, double: MlflowDouble) -> None:
    """And does not know services that are not here."""
    async with station(home, double) as server, line_to(server) as line:
        await server.serves("2")
        server.server.readiness.is_draining = True
        assert await line.health() == 2
        assert not (await line.call("ServerReady")).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await line.health("nope")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "method", ["/inference.GRPCInferenceService/TraceSetting", "/grpc.health.v1.Health/Watch", "/a.B/C"]
)
@story
async def test_unknown_call_is_told_what_there_is(home: Path, double: MlflowDouble, method: str) -> None:
    """UNIMPLEMENTED, in words."""
    async with station(home, double) as server, line_to(server) as line:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await line.bare(method)(b"", timeout=20.0)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert f"{method} is not offered by this server" in (caught.value.details() or "")


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@story
async def test_message_beyond_the_limit_is_refused(
    home: Path, double: MlflowDouble, compression: grpc.Compression
) -> None:
    """Also one that only unpacks to that size."""
    async with station(home, double, max_body_mb=1) as server, line_to(server) as line:
        await server.serves("2")
        request = raw_request(np.zeros((200_000, 3), np.float32))
        method = line.bare("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request.SerializeToString(), timeout=20.0, compression=compression)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(gzip.compress(request.SerializeToString())) < 1 << 20


@story
async def test_port_that_is_taken_is_named(home: Path, double: MlflowDouble) -> None:
    """Instead of sharing it in silence."""
    from serving.core.errors import SignalboxError

    async with station(home, double) as server:
        first, second = RpcServer(server.server.backing), RpcServer(server.server.backing)
        port = await first.start("127.0.0.1", 0)
        try:
            with pytest.raises(SignalboxError, match="SIGNALBOX_GRPC_PORT"):
                await second.start("127.0.0.1", port)
        finally:
            await first.stop(0)
            await second.stop(0)
