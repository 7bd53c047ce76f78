"""`POST /api/v2/rollback` and the status it points to: the way back, at once or by stages."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.core.errors import InvalidRequest
from serving.retreat import Asked, Retreat
from serving.store.destination import Wanted
from serving.store.rollbacks import Strategy

_VERSION = re.compile("[1-9][0-9]{0,17}")
_TEXTS = frozenset({"model", "strategy", "version", "restore_point", "at", "reason"})
_GRADUAL = frozenset({"stages", "stage_seconds"})
_FIELDS = _TEXTS | _GRADUAL | {"allow_signature_change"}
_MAX_STAGE_SECONDS = 86_400


def rollback_routes(retreat: Retreat) -> APIRouter:
    router = APIRouter(tags=["rollback"])

    @router.post("/api/v2/rollback", status_code=202)
    async def roll_back(request: Request) -> Response:
        asked = _asked(await request.body(), request.state.actor)
        request.state.caller.check_model(asked.model)
        rollback = await retreat.begin(asked)
        body = {
            "rollback_id": rollback.id,
            "status_url": f"/api/v2/rollback/{rollback.id}",
            "from": rollback.from_version,
            "to": rollback.to_version,
        }
        return JSONResponse(body, status_code=202)

    @router.get("/api/v2/rollback/{rollback_id}")
    async def status(rollback_id: str) -> dict[str, Any]:
        return await retreat.status(rollback_id)

    return router


def _asked(raw: bytes, actor: str) -> Asked:
    try:
        wish = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(wish, dict) or not isinstance(wish.get("model"), str):
        raise InvalidRequest('the body must be an object with "model"')
    if unknown := wish.keys() - _FIELDS:
        raise InvalidRequest(
            f"'{min(unknown)}' is not supported here; known are {', '.join(sorted(_FIELDS))}"
        )
    texts = {name: str(wish[name]) for name in _TEXTS if wish.get(name) is not None}
    if not _VERSION.fullmatch(texts.get("version", "1")):
        raise InvalidRequest(f"'version' must be a version number, not '{texts['version']}'")
    strategy = texts.get("strategy", Strategy.INSTANT)
    if strategy not in list(Strategy):
        raise InvalidRequest(f"strategy '{strategy}' is not one of {', '.join(Strategy)}")
    return Asked(
        model=texts["model"],
        strategy=Strategy(strategy),
        wanted=Wanted(
            restore_point=texts.get("restore_point"),
            version=texts.get("version"),
            at=_moment(texts.get("at")),
        ),
        actor=actor,
        reason=texts.get("reason", "asked for by hand"),
        allow_signature_change=_flag(wish.get("allow_signature_change", False)),
        options=_options(wish, Strategy(strategy)),
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        problem = f"'at' must be a time like 2026-01-31T12:00:00+00:00, not '{text}'"
        raise InvalidRequest(problem) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest("'allow_signature_change' must be true or false")
    return value


def _options(wish: Mapping[str, object], strategy: Strategy) -> dict[str, Any]:
    """How a gradual rollback goes: the shares, in percent, that the version left keeps, and for how long."""
    given = {name: wish[name] for name in _GRADUAL if wish.get(name) is not None}
    if given and strategy is not Strategy.GRADUAL:
        raise InvalidRequest(f"'{min(given)}' is for strategy gradual only")
    stages, seconds = given.get("stages"), given.get("stage_seconds")
    if stages is not None:
        is_list = isinstance(stages, list) and all(type(p) is int and 0 < p < 100 for p in stages)
        if not is_list or not isinstance(stages, list) or stages != sorted(set(stages), reverse=True):
            raise InvalidRequest("'stages' must be falling whole percents between 100 and 0, as [75, 50, 25]")
    if seconds is not None:
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 <= float(str(seconds)) <= _MAX_STAGE_SECONDS:
            raise InvalidRequest(f"'stage_seconds' must be a number from 0 to {_MAX_STAGE_SECONDS}")
    return given
