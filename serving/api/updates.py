"""`POST` and `GET /api/v2/update-models`, `GET /api/v2/rollouts` and the commands to a rollout under way."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from serving.core.errors import InvalidRequest
from serving.followed import FollowedModel
from serving.promotions import Asked, Promotions, progress
from serving.store.rollouts import Command

_STRATEGIES = ("staged", "direct")
_VERSION = re.compile("[1-9][0-9]{0,17}")
_FIELDS = frozenset(
    {
        *("model", "version", "model_path", "strategy", "validation"),
        *("rollout_stages", "stage_seconds", "stage_deadline_seconds"),
    }
)
_SHARES = frozenset({"min_accuracy", "max_accuracy_drop"})
_LIMITS = _SHARES | {"max_p95_ms", "max_memory_mb"}


def update_routes(promotions: Promotions, models: Mapping[str, FollowedModel]) -> APIRouter:
    router = APIRouter(tags=["rollouts"])

    def told(rollout: Any) -> dict[str, Any]:
        followed = models.get(rollout.model)
        served = followed.served if followed is not None else {}
        return progress(rollout, {alias: version.ref.version for alias, version in served.items()})

    @router.post("/api/v2/update-models", status_code=202)
    async def update(request: Request) -> Response:
        asked = _asked(await request.body(), request.state.actor)
        request.state.caller.check_model(asked.model)
        rollout = await promotions.begin(asked)
        body = {"swap_id": rollout.id, "status_url": f"/api/v2/update-models/{rollout.id}"}
        return JSONResponse(body, status_code=202)

    @router.get("/api/v2/update-models/{swap_id}")
    async def status(swap_id: str) -> dict[str, Any]:
        return told(await promotions.find(swap_id))

    @router.get("/api/v2/rollouts")
    async def rollouts(
        model: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        return {"rollouts": [told(rollout) for rollout in await promotions.recent(model, limit)]}

    @router.post("/api/v2/rollouts/{rollout_id}/{command}", status_code=202)
    async def command(rollout_id: str, command: Command, request: Request) -> Response:
        rollout = await promotions.find(rollout_id)
        request.state.caller.check_model(rollout.model)
        rollout = await promotions.command(rollout.id, command, request.state.actor)
        return JSONResponse(told(rollout), status_code=202)

    return router


def _asked(raw: bytes, actor: str) -> Asked:
    wish = _object(raw)
    version, path = wish.get("version"), wish.get("model_path")
    if (version is None) == (path is None):
        raise InvalidRequest('name either "version" or "model_path"')
    if version is not None and not _VERSION.fullmatch(str(version)):
        raise InvalidRequest(f"'version' must be a version number, not '{version}'")
    if path is not None and not isinstance(path, str):
        raise InvalidRequest("'model_path' must be a path")
    strategy = wish.get("strategy") or _STRATEGIES[0]
    if strategy not in _STRATEGIES:
        raise InvalidRequest(f"strategy '{strategy}' is not one of {', '.join(_STRATEGIES)}")
    stages = _stages(wish)
    if stages and strategy != _STRATEGIES[0]:
        raise InvalidRequest(f"a direct promotion has no stages for '{min(stages)}'")
    return Asked(
        model=wish["model"],
        version=None if version is None else str(version),
        model_path=path,
        strategy=strategy,
        actor=actor,
        policy={**_limits(wish.get("validation")), **stages},
    )


def _object(raw: bytes) -> dict[str, Any]:
    try:
        wish = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(wish, dict) or not isinstance(wish.get("model"), str):
        raise InvalidRequest('the body must be an object with "model"')
    if unknown := wish.keys() - _FIELDS:
        known = ", ".join(sorted(_FIELDS))
        raise InvalidRequest(f"'{min(unknown)}' is not known here; known are {known}")
    return wish


def _stages(wish: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's settings that were given, by the names that the flow has for them."""
    found: dict[str, Any] = {}
    stages = wish.get("rollout_stages")
    if stages is not None:
        is_list = isinstance(stages, list) and all(type(percent) is int for percent in stages)
        rises = is_list and stages == sorted(set(stages)) and stages[:1] >= [0] and stages[-1:] == [100]
        if not rises:
            raise InvalidRequest(
                "'rollout_stages' must be whole percents that rise to 100, as [5, 25, 50, 100]"
            )
        found["stages"] = stages
    for name in ("stage_seconds", "stage_deadline_seconds"):
        if wish.get(name) is not None:
            found[name] = _seconds(name, wish[name])
    return found


def _limits(given: Any) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidRequest("'validation' must be an object")
    if unknown := given.keys() - _LIMITS:
        known = ", ".join(sorted(_LIMITS))
        raise InvalidRequest(f"'validation.{min(unknown)}' is not known here; known are {known}")
    return {name: _limit(name, value) for name, value in given.items() if value is not None}


def _limit(name: str, value: Any) -> float:
    limit = _number(f"validation.{name}", value)
    if name in _SHARES and limit > 1:
        raise InvalidRequest(f"'validation.{name}' is a share from 0 to 1, not {limit:g}")
    return limit


def _seconds(name: str, value: Any) -> float:
    seconds = _number(name, value)
    if not seconds:
        raise InvalidRequest(f"'{name}' must be more than 0")
    return seconds


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):
        raise InvalidRequest(f"'{name}' must be a number from 0 on, not {str(value)[:60]!r}")
    return float(value)
