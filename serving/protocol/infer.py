"""The inference endpoint: bytes in, route, bytes out. The one hot path of the server.

Source: Open Inference Protocol v2, REST inference, with Triton's binary tensors and compression.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from serving.accounts import Answer
from serving.api.body import Message, Receive
from serving.api.encoding import is_packed_quickly, pack, packed, read_content, wanted_encoding
from serving.api.reply import Reply, header_lines
from serving.batcher import Timing
from serving.core.datatypes import Array
from serving.core.errors import ModelFailed
from serving.core.health import Status
from serving.core.model import VersionRef
from serving.inference import Inference
from serving.protocol.answer import Body, answer_parameters, encode_answer
from serving.protocol.deadline import timeout_seconds
from serving.protocol.plain import Plain, parsed, plain_of
from serving.protocol.raw_data import Buffer
from serving.protocol.request import InferRequest, parse_request
from serving.routes import Route

Send = Callable[[Message], Awaitable[None]]
_JSON_BYTES = "inference-header-content-length"
# Headers that make a request more than plain.
_UNUSUAL = frozenset({_JSON_BYTES, "x-request-timeout"})
_PATIENT_SECONDS = 1.0


class InferEndpoint:
    """`POST /v2/models/{model}[/versions/{version}]/infer`."""

    def __init__(
        self,
        inference: Inference,
        health: Callable[[str], Status],
        analytics: Callable[[VersionRef], dict[str, float | None]],
        *,
        max_body_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._inference = inference
        self._health = health
        self._analytics = analytics
        self._timeout_seconds = timeout_seconds
        self.max_body_bytes = max_body_bytes
        # Nobody's time is over before a short body is read.
        self._is_patient = timeout_seconds >= _PATIENT_SECONDS

    async def __call__(
        self,
        model: str,
        address: str | None,
        headers: Mapping[str, str],
        request_id: str,
        key: str,
        receive: Receive,
        send: Send,
    ) -> None:
        arrived = time.monotonic()
        raw = await read_content(receive, headers, self.max_body_bytes)
        request = parse_request(raw, headers.get(_JSON_BYTES))
        route = self._inference.route(model, address, key)
        timeout = headers.get("x-request-timeout")
        answer = await self._inference.infer(
            route,
            request.fit,
            deadline=arrived + timeout_seconds(request.parameters, timeout, self._timeout_seconds),
            request_id=request_id,
            finite=request.must_be_finite,
        )
        began_ns = time.perf_counter_ns()
        body = encode_answer(model, request, answer, self._parameters(model, request, answer))
        self._inference.rendered(answer, began_ns)
        await send_answer(send, answer, body, request_id, headers.get("accept-encoding"))

    def prompt_route(
        self, target: tuple[str, str | None], headers: Mapping[str, str], key: str
    ) -> Route | None:
        """The route of a request that `at_once` may be able to answer. Raises `NotServed`."""
        model, address = target
        route = self._inference.route(model, address, key)
        return route if route.version.is_prompt and "content-encoding" not in headers else None

    def at_once(self, route: Route, headers: Mapping[str, str], request_id: str, raw: Buffer) -> Reply | None:
        """The answer to a whole body, where nothing has to be waited for; None where `__call__` sees to it.

        Raises what `__call__` raises of a request that is refused.
        """
        if self._is_patient and not route.copies and _UNUSUAL.isdisjoint(headers):
            plain = plain_of(route.version)
            given: Any = parsed(raw) if plain.is_answerable else None
            arrived_ns = time.perf_counter_ns()
            inputs = plain.read(given)
            if inputs is not None:
                own_id = given.get("id")
                return self._answer_plainly(plain, route, headers, request_id, inputs, own_id, arrived_ns)
        arrived = time.monotonic()
        model = route.version.ref.model
        request = parse_request(raw, headers.get(_JSON_BYTES))
        request.check_outputs(route.version.model.outputs)
        timeout = headers.get("x-request-timeout")
        allowed = timeout_seconds(request.parameters, timeout, self._timeout_seconds)
        # Who allows no more than the time to read a request is late already, and told so by `__call__`.
        if time.monotonic() - arrived >= allowed:
            return None
        finite = request.must_be_finite
        answer = self._inference.at_once(route, request.fit, request_id=request_id, finite=finite)
        if answer is None:
            return None
        began_ns = time.perf_counter_ns()
        body = encode_answer(model, request, answer, self._parameters(model, request, answer))
        self._inference.rendered(answer, began_ns)
        head, content = _head(answer, body, request_id), body.content
        encoding = wanted_encoding(headers.get("accept-encoding"), len(content))
        # What would need a thread to be packed is sent as it is.
        if encoding is not None and is_packed_quickly(content):
            content = pack(content, encoding)
            head += _packing(encoding)
        head.append((b"content-length", b"%d" % len(content)))
        return Reply(200, head, content)

    def _parameters(self, model: str, request: InferRequest, answer: Answer) -> dict[str, Any]:
        """Figures that are asked for and not known are null, so that what is told does not depend on it."""
        parameters = answer_parameters(answer.variant, answer.alias, self._health(model))
        if request.wants_analytics:
            parameters |= self._analytics(answer.version.ref)
        return parameters

    def _answer_plainly(
        self,
        plain: Plain,
        route: Route,
        headers: Mapping[str, str],
        request_id: str,
        inputs: dict[str, Array],
        own_id: str | None,
        arrived_ns: int,
    ) -> Reply | None:
        """As `at_once`, of a request that is nothing but numbers.

        The answer's are written before it is accounted, because writing shows whether they are finite.
        """
        timing = Timing(asked_ns=time.perf_counter_ns())
        try:
            outputs = route.version.at_once(inputs, timing)
        except ModelFailed:
            return None
        if outputs is None:
            return None
        began_ns = time.perf_counter_ns()
        content = plain.write(route, self._health(route.version.ref.model), outputs, own_id)
        if content is None:
            return None
        rendered_ns = time.perf_counter_ns() - began_ns
        self._inference.answered_at_once(
            route, inputs, outputs, timing, arrived_ns, rendered_ns, request_id, is_batched=plain.is_batched
        )
        encoding = wanted_encoding(headers.get("accept-encoding"), len(content))
        if encoding is None or not is_packed_quickly(content):
            return Reply(200, [], content, plain.lines(route, request_id, len(content)))
        content = pack(content, encoding)
        lines = plain.lines(route, request_id, len(content)) + header_lines(_packing(encoding))
        return Reply(200, [], content, lines)


async def send_answer(send: Send, answer: Answer, body: Body, request_id: str, accepted: str | None) -> None:
    """Send it, compressed where the caller asks for that."""
    content = body.content
    headers = _head(answer, body, request_id)
    encoding = wanted_encoding(accepted, len(content))
    if encoding is not None:
        content = await packed(content, encoding)
        headers += _packing(encoding)
    headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _head(answer: Answer, body: Body, request_id: str) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", b"application/json" if body.json_bytes is None else b"application/octet-stream"),
        (b"x-model-version", answer.version.ref.version.encode()),
        (b"x-model-variant", answer.variant.encode()),
        (b"x-request-id", request_id.encode()),
    ]
    if body.json_bytes is not None:
        headers.append((_JSON_BYTES.encode(), b"%d" % body.json_bytes))
    return headers


def _packing(encoding: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
