"""The inference endpoint: bytes in, route, bytes out. The one hot path of the server.

Source: Open Inference Protocol v2, REST inference. Binary tensors are not read yet; a request that
carries them is told so.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import orjson

from serving.api.body import Message, Receive, read_body
from serving.core.errors import InvalidRequest
from serving.core.health import Status
from serving.core.model import TensorSpec
from serving.inference import Answer, Inference
from serving.protocol.tensors import check_request_inputs, encode_json, parse_body

Send = Callable[[Message], Awaitable[None]]
Output = TypeVar("Output")
_KNOWN_FIELDS = frozenset({"id", "parameters", "inputs", "outputs"})


class InferEndpoint:
    """`POST /v2/models/{model}[/versions/{version}]/infer`."""

    def __init__(
        self,
        inference: Inference,
        health: Callable[[str], Status],
        *,
        max_body_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._inference = inference
        self._health = health
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds

    @property
    def max_body_bytes(self) -> int:
        return self._max_body_bytes

    async def __call__(
        self,
        quoted_model: str,
        quoted_version: str | None,
        headers: Mapping[str, str],
        request_id: str,
        receive: Receive,
        send: Send,
    ) -> None:
        arrived = time.monotonic()
        raw = await read_body(receive, headers, self._max_body_bytes)
        if "inference-header-content-length" in headers:
            raise InvalidRequest(
                "binary tensor data is not supported by this server yet: send tensors as JSON "
                "(tritonclient: binary_data=False)"
            )
        request = parse_body(raw)
        _check_request(request)
        model = unquote(quoted_model)
        route = self._inference.route(model, unquote(quoted_version) if quoted_version else None)
        outputs = route.version.model.outputs
        if outputs:
            _chosen(request, {spec.name: spec for spec in outputs})
        tensors = request.get("inputs")

        def read(specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
            return check_request_inputs(tensors, specs)

        deadline = arrived + _timeout_seconds(request, headers, self._timeout_seconds)
        answer = await self._inference.infer(
            route, read, deadline=deadline, request_id=request_id, finite=True
        )
        await _send_answer(send, answer, self._body(model, request, answer), request_id)

    def _body(self, model: str, request: Mapping[str, Any], answer: Answer) -> bytes:
        parameters: dict[str, Any] = {"variant": answer.variant, "health": self._health(model)}
        if answer.alias is not None:
            parameters["alias"] = answer.alias
        body: dict[str, Any] = {
            "model_name": model,
            "model_version": answer.version.ref.version,
            "parameters": parameters,
            "outputs": [encode_json(name, array) for name, array in _chosen(request, answer.outputs)],
        }
        if "id" in request:
            body["id"] = request["id"]
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _check_request(request: Mapping[str, Any]) -> None:
    unknown = request.keys() - _KNOWN_FIELDS
    if unknown:
        raise InvalidRequest(f"unknown field '{min(unknown)}' in the request")
    if not isinstance(request.get("id", ""), str):
        raise InvalidRequest("'id' must be a string")
    if not isinstance(request.get("parameters", {}), dict):
        raise InvalidRequest("'parameters' must be an object")


def _chosen(request: Mapping[str, Any], outputs: Mapping[str, Output]) -> list[tuple[str, Output]]:
    """The outputs the request names, in its order; all of them if it names none."""
    asked = request.get("outputs")
    if not asked:
        return list(outputs.items())
    chosen = []
    for entry in asked if isinstance(asked, list) else [asked]:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in outputs:
            raise InvalidRequest(f"unknown output; the model gives {', '.join(outputs)}", tensor=str(name))
        chosen.append((name, outputs[name]))
    return chosen


def _timeout_seconds(request: Mapping[str, Any], headers: Mapping[str, str], default_seconds: float) -> float:
    """The smallest of the server's, the request's (`timeout`, in microseconds) and the header's (seconds)."""
    limits = [default_seconds]
    microseconds = (request.get("parameters") or {}).get("timeout")
    if microseconds is not None:
        if type(microseconds) is not int or microseconds < 0:
            raise InvalidRequest("parameter 'timeout' must be a whole number of microseconds")
        limits += [microseconds / 1e6] if microseconds else []
    header = headers.get("x-request-timeout")
    if header is not None:
        limits.append(_header_seconds(header))
    return min(limits)


def _header_seconds(header: str) -> float:
    try:
        seconds = float(header)
    except ValueError:
        raise InvalidRequest("X-Request-Timeout must be a number of seconds") from None
    if not seconds > 0:
        raise InvalidRequest("X-Request-Timeout must be more than 0 seconds")
    return seconds


async def _send_answer(send: Send, answer: Answer, body: bytes, request_id: str) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-model-version", answer.version.ref.version.encode()),
        (b"x-model-variant", answer.variant.encode()),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
