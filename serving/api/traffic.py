"""`GET` and `PUT /api/v2/traffic/{model}`: the split that requests meet, and the wish for another one."""

from dataclasses import asdict
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.core.errors import InvalidRequest
from serving.core.traffic import ALL_PERCENT, is_percent, is_version
from serving.traffic import Traffic

_FIELDS = frozenset({"percent", "challenger"})


def traffic_routes(traffic: Traffic) -> APIRouter:
    router = APIRouter(tags=["traffic"])

    @router.get("/api/v2/traffic/{model}")
    async def state(model: str) -> dict[str, Any]:
        return asdict(traffic.state(model))

    @router.put("/api/v2/traffic/{model}")
    async def change(request: Request, model: str) -> Response:
        percent, challenger = _wish(await request.body())
        state, is_met = await traffic.change(model, percent, challenger, request.state.actor)
        return JSONResponse(asdict(state), status_code=200 if is_met else 202)

    return router


def _wish(raw: bytes) -> tuple[int, str | None]:
    try:
        wish = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(wish, dict):
        raise InvalidRequest('the body must be an object like {"percent": 25}')
    if unknown := wish.keys() - _FIELDS:
        raise InvalidRequest(f"'{min(unknown)}' is not known here; known are challenger, percent")
    percent, challenger = wish.get("percent"), wish.get("challenger")
    if not is_percent(percent):
        raise InvalidRequest(f"'percent' must be a whole number from 0 to {ALL_PERCENT}")
    if type(challenger) is int:
        challenger = str(challenger)
    if challenger is not None and not (isinstance(challenger, str) and is_version(challenger)):
        raise InvalidRequest("'challenger' must be a version number")
    assert isinstance(percent, int)
    return percent, challenger
