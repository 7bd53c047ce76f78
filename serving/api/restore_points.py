"""`GET` and `POST /api/v2/restore-points`, `GET restore-points/{id}`, and the freezes of promotions."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from serving.core.clock import Clock
from serving.core.errors import InvalidRequest
from serving.ledger import Ledger
from serving.settings import ServingSettings
from serving.store import capture, freezes, restore_points
from serving.store.capture import Wanted
from serving.store.registry import Registry
from serving.store.restore_points import Kind, RestorePoint
from serving.store.snapshot import differences, public_settings

_PRESENT = "now"


def restore_point_routes(
    registry: Registry, ledger: Ledger, settings: ServingSettings, clock: Clock
) -> APIRouter:
    router = APIRouter(tags=["restore points"])

    @router.get("/api/v2/restore-points")
    async def listed(
        model: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 50
    ) -> dict[str, Any]:
        found = await ledger.look(lambda engine: restore_points.listed(engine, model, limit))
        return {"restore_points": [_brief(point) for point in found]}

    @router.post("/api/v2/restore-points", status_code=201)
    async def create(request: Request) -> Response:
        wish = _wish(await request.body(), {"model", "reason"})
        model = str(wish["model"])
        request.state.caller.check_model(model)
        wanted = Wanted(
            uuid4().hex,
            model,
            Kind.BY_HAND,
            str(wish.get("reason") or "made by hand"),
            request.state.actor,
            public_settings(settings),
        )
        point = await ledger.look(lambda engine: capture.make(engine, registry, wanted, clock.now()))
        return JSONResponse(point.as_json() | {"is_intact": point.is_intact}, status_code=201)

    @router.get("/api/v2/restore-points/{point_id}")
    async def one(point_id: str, diff: str | None = None) -> dict[str, Any]:
        point = await ledger.look(lambda engine: restore_points.get(engine, point_id))
        told = point.as_json() | {"is_intact": point.is_intact}
        if diff is None:
            return dict(told)
        shown = public_settings(settings)

        def other(engine: Any) -> Any:
            if diff != _PRESENT:
                return restore_points.get(engine, diff).state
            return capture.captured(engine, registry, point.model, shown, clock.now())

        state = await ledger.look(other)
        return {**told, "diff": [each.as_json() for each in differences(point.state, state)]}

    @router.get("/api/v2/freezes")
    async def frozen() -> dict[str, Any]:
        now = clock.now()
        found = await ledger.look(lambda engine: freezes.in_force(engine, now))
        return {"freezes": [freeze.as_json() for freeze in found]}

    @router.post("/api/v2/freezes", status_code=201)
    async def freeze(request: Request) -> Response:
        wish = _wish(await request.body(), {"model", "until", "reason", "lift"}, needs_model=False)
        model = str(wish["model"]) if wish.get("model") is not None else None
        request.state.caller.check_model(model or "*")
        actor, now = request.state.actor, clock.now()
        if wish.get("lift") is True:
            lifted = await ledger.call(lambda engine: freezes.lift(engine, model, actor, now))
            return JSONResponse(lifted.as_json())
        until, reason = _moment(wish.get("until")), str(wish.get("reason") or "")
        found = await ledger.call(lambda engine: freezes.freeze(engine, model, until, actor, reason, now))
        return JSONResponse(found.as_json(), status_code=201)

    return router


def _wish(raw: bytes, fields: set[str], *, needs_model: bool = True) -> dict[str, Any]:
    try:
        wish = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(wish, dict) or (needs_model and not isinstance(wish.get("model"), str)):
        raise InvalidRequest('the body must be an object with "model"')
    if unknown := wish.keys() - fields:
        raise InvalidRequest(f"'{min(unknown)}' is not known here; known are {', '.join(sorted(fields))}")
    return wish


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        problem = f"'until' must be a time like 2026-01-31T12:00:00+00:00, not '{value}'"
        raise InvalidRequest(problem) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _brief(point: RestorePoint) -> dict[str, Any]:
    """A point without its state, which `restore-points/{id}` has."""
    told = {name: value for name, value in point.as_json().items() if name != "state"}
    return told | {"is_intact": point.is_intact}
