"""`POST /api/v2/feedback`: what the right answer would have been, by request id, now or days later."""

import math
import re
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.api.access import Caller
from serving.core.clock import Clock
from serving.core.errors import AccessRefused, InvalidRequest
from serving.core.labels import MAX_ELEMENTS, Label, LabelValue
from serving.feedback import Feedback

_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_FIELDS = frozenset({"request_id", "row", "label", "model"})
_MAX_LABELS = 10_000
_MAX_ROW = 1 << 31
_MAX_TEXT = 1000
_MAX_INTEGER = 1 << 63


def feedback_routes(feedback: Feedback, clock: Clock) -> APIRouter:
    router = APIRouter(tags=["feedback"])

    @router.post("/api/v2/feedback", status_code=202)
    async def give(request: Request) -> Response:
        labels = _labels(await request.body(), request.state.caller, clock)
        await feedback.accept(labels)
        return JSONResponse({"accepted": len(labels)}, status_code=202)

    return router


def _labels(raw: bytes, caller: Caller, clock: Clock) -> list[Label]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    entries = body if isinstance(body, list) else [body]
    if not entries or len(entries) > _MAX_LABELS:
        raise InvalidRequest(f"the body must hold 1 to {_MAX_LABELS} labels, not {len(entries)}")
    return [_label(entry, place, caller, clock) for place, entry in enumerate(entries)]


def _label(entry: Any, place: int, caller: Caller, clock: Clock) -> Label:
    if not isinstance(entry, dict) or not {"request_id", "label"} <= entry.keys():
        raise _wrong(place, 'must be an object with "request_id" and "label"')
    if unknown := entry.keys() - _FIELDS:
        raise _wrong(place, f"has the unknown field '{min(unknown)}'; known are {', '.join(sorted(_FIELDS))}")
    request_id, row, model = entry["request_id"], entry.get("row", 0), entry.get("model")
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise _wrong(place, "'request_id' must be the X-Request-Id of an answer")
    if type(row) is not int or not 0 <= row < _MAX_ROW:
        raise _wrong(place, "'row' must be the number of a row in its request, from 0")
    if model is not None and not isinstance(model, str):
        raise _wrong(place, "'model' must be a name")
    _check_model(caller, model)
    label = _value(entry["label"], place)
    return Label(request_id=request_id, row=row, label=label, at=clock.now(), model=model)


def _check_model(caller: Caller, model: str | None) -> None:
    """A key for some models says whose answer it labels, because a request id tells that to nobody."""
    if model is not None:
        caller.check_model(model)
    elif caller.key is not None and caller.key.models:
        globs = ", ".join(caller.key.models)
        problem = f"key '{caller.key.name}' is for models {globs}: name the model in every label"
        raise AccessRefused(problem, identified=True)


def _value(value: Any, place: int) -> LabelValue:
    if isinstance(value, bool) or (isinstance(value, str) and len(value) <= _MAX_TEXT):
        return value
    if isinstance(value, int | float) and _is_number(value):
        return value
    if isinstance(value, list) and 0 < len(value) <= MAX_ELEMENTS and all(map(_is_number, value)):
        return [float(element) for element in value]
    problem = (
        f"'label' must be text of at most {_MAX_TEXT} characters, true, false, a finite number, or a list "
        f"of 1 to {MAX_ELEMENTS} of them"
    )
    raise _wrong(place, problem)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and (isinstance(value, float) or abs(value) < _MAX_INTEGER)


def _wrong(place: int, problem: str) -> InvalidRequest:
    return InvalidRequest(f"label {place}: {problem}")
