"""The Open Inference Protocol's other calls: health, metadata, repository index.

Source: Open Inference Protocol v2 (REST) and Triton's model repository extension.
"""

from collections.abc import Mapping
from importlib.metadata import version as installed_version
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.core.errors import InvalidRequest
from serving.followed import FollowedModel
from serving.pool import LoadedVersion
from serving.readiness import Readiness
from serving.routes import Routes

EXTENSIONS = ("model_repository",)


def protocol_routes(routes: Routes, models: Mapping[str, FollowedModel], readiness: Readiness) -> APIRouter:
    """The router for `/v2` without inference."""
    router = APIRouter(tags=["Open Inference Protocol"])

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/v2/health/ready")
    async def ready() -> Response:
        waiting = readiness.waiting_for()
        body: dict[str, Any] = {"live": True, "ready": not waiting}
        if waiting:
            body["waiting_for"] = waiting
        return JSONResponse(body, status_code=503 if waiting else 200)

    @router.get("/v2")
    @router.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        return {
            "name": "signalbox",
            "version": installed_version("signalbox"),
            "extensions": list(EXTENSIONS),
        }

    @router.get("/v2/models")
    async def names() -> dict[str, list[str]]:
        return {"models": routes.names()}

    @router.get("/v2/models/{model}")
    @router.get("/v2/models/{model}/versions/{version}")
    async def metadata(model: str, version: str | None = None) -> dict[str, Any]:
        route = routes.find(model, version)
        return _metadata(route.version, routes.of(model).versions())

    @router.get("/v2/models/{model}/ready")
    @router.get("/v2/models/{model}/versions/{version}/ready")
    async def model_ready(model: str, version: str | None = None) -> dict[str, Any]:
        routes.find(model, version)
        return {"name": model, "ready": True}

    @router.post("/v2/repository/index")
    async def index(request: Request) -> list[dict[str, str]]:
        return _index(models, only_ready=await _only_ready(request))

    return router


async def _only_ready(request: Request) -> bool:
    raw = await request.body()
    try:
        options = orjson.loads(raw) if raw.strip() else {}
        if not isinstance(options, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise InvalidRequest(f'the body must be empty or {{"ready": true}}: {error}') from None
    return bool(options.get("ready", False))


def _metadata(version: LoadedVersion, versions: list[str]) -> dict[str, Any]:
    model = version.model
    return {
        "name": version.ref.model,
        "versions": versions,
        "platform": model.platform,
        "inputs": [_tensor(spec.name, spec.datatype, spec.wire_shape) for spec in model.inputs],
        "outputs": [_tensor(spec.name, spec.datatype, spec.wire_shape) for spec in model.outputs],
        "properties": {"version": version.ref.version, "digest": version.provenance.digest},
    }


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _index(models: Mapping[str, FollowedModel], *, only_ready: bool) -> list[dict[str, str]]:
    entries = []
    for name in sorted(models):
        states = _states(models[name])
        entries += [
            {"name": name, "version": version, "state": state, "reason": reason}
            for version, (state, reason) in sorted(states.items(), key=lambda item: int(item[0]))
            if state == "READY" or not only_ready
        ]
    return entries


def _states(model: FollowedModel) -> dict[str, tuple[str, str]]:
    """State and reason by version; what is served is READY even where another alias refused it."""
    states = {r.key.ref.version: ("UNAVAILABLE", r.reason) for r in model.refusals.values()}
    if model.preparing is not None:
        states[model.preparing.key.ref.version] = ("LOADING", f"wanted as {model.preparing.alias}")
    return states | {loaded.ref.version: ("READY", "") for loaded in model.served.values()}
