"""The door every gRPC call passes: its key is checked as for its REST twin, its errors become statuses.

Source of the statuses: `serving.api.errors`, the one table for all transports.
"""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import grpc

from serving.api.access import Access
from serving.api.errors import Failure, failure_of
from serving.api.intake import Intake
from serving.logs import bound_request
from serving.protocol.route_key import route_key
from serving.rpc.calls import Caller
from serving.rpc.generated import inference_pb2 as pb

log = logging.getLogger(__name__)

Call = Callable[[Any, Caller], Awaitable[Any]]
Context = grpc.aio.ServicerContext[Any, Any]
# The REST call that a message's gRPC call stands for: method and path.
Twin = Callable[[Any], tuple[str, str]]

_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
# Details travel in a header, which clients bound.
_DETAILS_CHARACTERS = 4000
_FINAL = "triton_enable_empty_final_response"


class Door:
    """Confined to the event loop's thread."""

    def __init__(self, access: Access, intake: Intake) -> None:
        self._access = access
        self._intake = intake

    def _admitted(self, method: str, path: str, metadata: dict[str, str], context: Context) -> str:
        address = context.peer().rpartition(":")[0]
        return self._access.admit(method, unquote(path), metadata, target=path, address=address).name

    def unary(self, call: Call, twin: Twin) -> Callable[[Any, Context], Awaitable[Any]]:
        """`call` as gRPC wants it."""

        async def pass_through(message: Any, context: Context) -> Any:
            metadata = _metadata(context)
            request_id = _request_id(metadata)
            key = route_key(metadata, request_id)
            caller = Caller("", request_id, context.time_remaining(), key)
            bound_request.set(request_id)
            try:
                caller.actor = self._admitted(*twin(message), metadata, context)
                with self._intake.holding(message.ByteSize()):
                    answer = await call(message, caller)
            except Exception as error:  # the edge: whatever escaped becomes a status
                failure = failure_of(error)
            else:
                context.set_trailing_metadata(_as_metadata(caller, {}))
                return answer
            await _abort(context, failure, caller)

        return pass_through

    def stream(self, call: Call, twin: Twin) -> Callable[[Any, Context], AsyncIterator[Any]]:
        """One answer for each message, in order; an error answers its own message and ends nothing."""

        async def pass_through(
            messages: AsyncIterator[pb.ModelInferRequest], context: Context
        ) -> AsyncIterator[pb.ModelStreamInferResponse]:
            metadata = _metadata(context)
            async for message in messages:
                request_id = uuid4().hex
                key = route_key(metadata, request_id)
                caller = Caller("", request_id, context.time_remaining(), key)
                try:
                    caller.actor = self._admitted(*twin(message), metadata, context)
                    with self._intake.holding(message.ByteSize()):
                        answer = pb.ModelStreamInferResponse(infer_response=await call(message, caller))
                except Exception as error:  # the edge: whatever escaped becomes an answer
                    answer = pb.ModelStreamInferResponse(error_message=failure_of(error).message)
                    answer.infer_response.id = message.id
                    answer.infer_response.model_name = message.model_name
                if message.parameters[_FINAL].bool_param if _FINAL in message.parameters else False:
                    answer.infer_response.parameters["triton_final_response"].bool_param = True
                yield answer

        return pass_through


def model_twin(method: str, call: str) -> Twin:
    """The REST path of a call about a model, whose message names it `name` or `model_name`."""

    def twin(message: Any) -> tuple[str, str]:
        is_infer = hasattr(message, "model_version")
        model = message.model_name if is_infer else message.name
        version = message.model_version if is_infer else message.version
        place = f"/v2/models/{quote(model, safe='')}" if model else "/v2/models"
        return method, place + (f"/versions/{quote(version, safe='')}" if version else "") + call

    return twin


def repository_twin(call: str) -> Twin:
    """A load or unload; the name may carry a version, as in the REST path."""
    return lambda message: ("POST", f"/v2/repository/models/{quote(message.model_name)}/{call}")


def fixed_twin(method: str, path: str) -> Twin:
    return lambda message: (method, path)


async def refuse(context: Context, code: grpc.StatusCode, sentence: str) -> None:
    """End a call that this server does not take."""
    await context.abort(code, sentence)


async def _abort(context: Context, failure: Failure, caller: Caller) -> None:
    details = failure.message[:_DETAILS_CHARACTERS]
    headers = {name.lower(): value for name, value in failure.headers.items() if name == "Retry-After"}
    await context.abort(grpc.StatusCode[failure.code], details, _as_metadata(caller, headers))


def _metadata(context: Context) -> dict[str, str]:
    """What the caller sent beside the message, as HTTP headers; binary entries carry nothing we read."""
    given = context.invocation_metadata() or ()
    return {key: value for key, value in given if isinstance(value, str)}


def _request_id(metadata: dict[str, str]) -> str:
    given = metadata.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


def _as_metadata(caller: Caller, headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(({"x-request-id": caller.request_id} | caller.metadata | headers).items())
