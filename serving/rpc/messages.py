"""Inference messages of the gRPC service to the protocol's request and back.

Source: Open Inference Protocol v2 (gRPC). Tensors come raw or as typed contents, never mixed; the answer
comes as the request did. Half precision has no typed contents and is always raw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.accounts import Answer
from serving.core.datatypes import Array
from serving.core.errors import InvalidRequest
from serving.protocol.answer import asked_outputs
from serving.protocol.json_data import ONLY_BINARY, plain, wire_datatype
from serving.protocol.raw_data import encode_raw
from serving.protocol.request import InferRequest, wanted_outputs, wants_analytics
from serving.rpc.generated import inference_pb2 as pb

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Read as bytes, because a list is read as JSON is, which has no NaN.
_FLOATS = {"FP32": np.float32, "FP64": np.float64}


def read_request(message: pb.ModelInferRequest) -> InferRequest:
    """Raises `InvalidRequest` naming the tensor."""
    asked = [
        {"name": output.name, "parameters": {"classification": _classes(output.parameters)}}
        for output in message.outputs
    ]
    parameters = parameter_values(message.parameters)
    return InferRequest(
        inputs=_raw_inputs(message) if message.raw_input_contents else _typed_inputs(message),
        wanted=wanted_outputs(asked, is_binary=True),
        is_binary=True,
        parameters=parameters,
        id=message.id or None,
        wants_analytics=wants_analytics(parameters),
    )


def parameter_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a message's parameters; those without a value are left out."""
    values = {}
    for name, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            values[name] = getattr(value, choice)
    return values


def write_answer(
    message: pb.ModelInferRequest, request: InferRequest, answer: Answer, parameters: Mapping[str, Any]
) -> pb.ModelInferResponse:
    """A parameter without a value is left out: the message has no null."""
    response = pb.ModelInferResponse(
        model_name=message.model_name, model_version=answer.version.ref.version, id=message.id
    )
    for name, value in parameters.items():
        if isinstance(value, str):
            response.parameters[name].string_param = value
        elif value is not None:
            response.parameters[name].double_param = value
    outputs = [
        (wanted.name, wire_datatype(wanted.name, array), array)
        for wanted, array in asked_outputs(request, answer)
    ]
    is_raw = bool(message.raw_input_contents) or any(datatype in ONLY_BINARY for _, datatype, _ in outputs)
    for name, datatype, array in outputs:
        output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if is_raw:
            response.raw_output_contents.append(bytes(encode_raw(name, array)))
        else:
            _fill(output.contents, name, datatype, array)
    return response


def _classes(parameters: Mapping[str, Any]) -> Any:
    return parameter_values(parameters).get("classification", 0)


def _raw_inputs(message: pb.ModelInferRequest) -> list[dict[str, Any]]:
    raw: Sequence[bytes] = message.raw_input_contents
    if len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs: give one for each"
        )
    tensors = []
    for tensor, data in zip(message.inputs, raw, strict=True):
        if tensor.HasField("contents") and tensor.contents.ByteSize():
            raise InvalidRequest("has contents and raw contents: send one of them", tensor=tensor.name)
        tensors.append(_described(tensor) | {"data": data})
    return tensors


def _typed_inputs(message: pb.ModelInferRequest) -> list[dict[str, Any]]:
    return [_described(tensor) | {"data": _typed_data(tensor)} for tensor in message.inputs]


def _described(tensor: pb.ModelInferRequest.InferInputTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": parameter_values(tensor.parameters),
    }


def _typed_data(tensor: pb.ModelInferRequest.InferInputTensor) -> object:
    """A list, or bytes for floats; None where shared memory was meant, which is refused by its parameters."""
    if "shared_memory_region" in tensor.parameters:
        return None
    contents = _CONTENTS.get(tensor.datatype)
    if contents is None:
        return []
    data = getattr(tensor.contents, contents)
    if tensor.datatype in _FLOATS:
        return np.array(data, _FLOATS[tensor.datatype]).tobytes()
    if tensor.datatype == "BYTES":
        return [_text(item, tensor.name) for item in data]
    return list(data)


def _text(item: bytes, name: str) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("an element is not UTF-8 text", tensor=name) from None


def _fill(contents: pb.InferTensorContents, name: str, datatype: str, array: Array) -> None:
    data: Any = plain(name, array)
    elements = [text.encode() for text in data] if datatype == "BYTES" else data.tolist()
    getattr(contents, _CONTENTS[datatype]).extend(elements)
