"""`POST /api/v2/rollback` and the status it points to: the way back without MLflow, Prefect or the store."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.core.errors import InvalidRequest, NotServed
from serving.core.model import Alias
from serving.followed import FollowedModel
from serving.overrides import Overrides
from serving.rollback import Rollback, Rollbacks, Strategy

_VERSION = re.compile("[1-9][0-9]{0,17}")
_FIELDS = frozenset({"model", "strategy", "version", "reason"})


def rollback_routes(
    rollbacks: Rollbacks,
    models: Mapping[str, FollowedModel],
    overrides: Overrides,
    elsewhere: Callable[[str], Awaitable[dict[str, Any] | None]],
) -> APIRouter:
    """`elsewhere` asks the server's other workers for the status of a rollback that one of them took."""
    router = APIRouter(tags=["rollback"])

    @router.post("/api/v2/rollback", status_code=202)
    async def roll_back(request: Request) -> Response:
        wish = _wish(await request.body())
        request.state.caller.check_model(wish["model"])
        rollback = await rollbacks.take(
            wish["model"],
            Strategy(wish["strategy"]),
            version=wish.get("version"),
            actor=request.state.actor,
            reason=wish.get("reason", "asked for by hand"),
        )
        body = {
            "rollback_id": rollback.id,
            "status_url": f"/api/v2/rollback/{rollback.id}",
            "from": rollback.from_version,
            "to": rollback.to_version,
        }
        return JSONResponse(body, status_code=202)

    @router.get("/api/v2/rollback/{rollback_id}")
    async def status(rollback_id: str) -> dict[str, Any]:
        rollback = rollbacks.taken.get(rollback_id)
        if rollback is not None:
            return rollback_status(rollback, models[rollback.model], overrides)
        if (told := await elsewhere(rollback_id)) is not None:
            return told
        raise NotServed(f"rollback {rollback_id} was not taken by this server", exists=list(rollbacks.taken))

    return router


def _wish(raw: bytes) -> dict[str, str]:
    try:
        wish = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(wish, dict) or not isinstance(wish.get("model"), str):
        raise InvalidRequest('the body must be an object with "model"')
    unknown = wish.keys() - _FIELDS
    if unknown:
        raise InvalidRequest(
            f"'{min(unknown)}' is not supported here; known are {', '.join(sorted(_FIELDS))}"
        )
    wish = {name: str(value) for name, value in wish.items() if value is not None}
    if not _VERSION.fullmatch(wish.get("version", "1")):
        raise InvalidRequest(f"'version' must be a version number, not '{wish['version']}'")
    strategy = wish.setdefault("strategy", Strategy.INSTANT)
    if strategy not in list(Strategy):
        raise InvalidRequest(f"strategy '{strategy}' is not one of {', '.join(Strategy)}")
    return wish


def rollback_status(rollback: Rollback, model: FollowedModel, overrides: Overrides) -> dict[str, Any]:
    """Traffic moved before the rollback was answered; what may lag behind is the registry."""
    is_pending = any(override.id == rollback.id for override in overrides.own(rollback.model))
    served = model.served.get(Alias.CHAMPION)
    return {
        "rollback_id": rollback.id,
        "model": rollback.model,
        "from": rollback.from_version,
        "to": rollback.to_version,
        "strategy": str(rollback.strategy),
        "actor": rollback.actor,
        "reason": rollback.reason,
        "at": rollback.at.isoformat(),
        "state": "completed",
        "success": True,
        "serving": served.ref.version if served else None,
        "registry": "pending" if is_pending else "settled",
    }
