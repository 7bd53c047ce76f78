"""The body of an inference answer over HTTP: JSON, and after it the outputs that were asked for as bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving.accounts import Answer
from serving.core.datatypes import Array
from serving.core.health import Status
from serving.protocol.classification import best_classes
from serving.protocol.json_data import encode_json, wire_datatype
from serving.protocol.raw_data import Buffer, encode_raw
from serving.protocol.request import InferRequest, Wanted
from serving.telemetry.inference_log import first_axis_is_batch


@dataclass(frozen=True, slots=True)
class Body:
    """`json_bytes` is the length of the JSON part where bytes follow it, else None."""

    content: bytes
    json_bytes: int | None = None


def answer_parameters(variant: str, alias: str | None, health: Status) -> dict[str, Any]:
    """What an answer tells about who gave it."""
    parameters: dict[str, Any] = {"variant": variant, "health": health}
    if alias is not None:
        parameters["alias"] = alias
    return parameters


def asked_outputs(request: InferRequest, answer: Answer) -> Sequence[tuple[Wanted, Array]]:
    """What is sent: the outputs the request names, those ranked that it wants as classes."""
    chosen = request.chosen(answer.outputs)
    if not request.wanted or not any(wanted.classes for wanted in request.wanted):
        return chosen
    batched = first_axis_is_batch(answer.version.model.inputs)
    return [
        (wanted, best_classes(wanted.name, array, wanted.classes, first_axis_is_batch=batched))
        if wanted.classes
        else (wanted, array)
        for wanted, array in chosen
    ]


def encode_answer(model: str, request: InferRequest, answer: Answer, parameters: Mapping[str, Any]) -> Body:
    """Joined once; the bytes of the outputs are not copied before that."""
    parts: list[Buffer] = []
    outputs = [_encoded(wanted, array, parts) for wanted, array in asked_outputs(request, answer)]
    body: dict[str, Any] = {
        "model_name": model,
        "model_version": answer.version.ref.version,
        "parameters": parameters,
        "outputs": outputs,
    }
    if request.id is not None:
        body["id"] = request.id
    head = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return Body(head)
    return Body(b"".join((head, *parts)), len(head))


def _encoded(wanted: Wanted, array: Array, parts: list[Buffer]) -> dict[str, Any]:
    if not wanted.is_binary:
        return encode_json(wanted.name, array)
    raw = encode_raw(wanted.name, array)
    parts.append(raw)
    return {
        "name": wanted.name,
        "shape": list(array.shape),
        "datatype": wire_datatype(wanted.name, array),
        "parameters": {"binary_data_size": len(raw)},
    }
