"""The Open Inference Protocol's other calls: health, metadata, configuration, statistics, repository.

Source: Open Inference Protocol v2 (REST) and Triton's extensions.
"""

from typing import Any, Protocol

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.core.errors import InvalidRequest
from serving.protocol.catalogue import Catalogue
from serving.protocol.repository import read_load, read_unload


class Repository(Protocol):
    """Loads versions nobody's alias names, and lets go of them. `version` None means all in question."""

    async def load(self, model: str, version: str | None, actor: str) -> None:
        """Returns once it answers. Raises what keeps it from answering."""
        ...

    async def unload(self, model: str, version: str | None, actor: str) -> None:
        """Raises `ChangeRefused` for what an alias names, `NotServed` for what is not loaded."""
        ...


def protocol_routes(catalogue: Catalogue, repository: Repository) -> APIRouter:
    """The router for `/v2` without inference."""
    router = APIRouter(tags=["Open Inference Protocol"])
    router.include_router(_server_routes(catalogue))
    router.include_router(_model_routes(catalogue))
    router.include_router(_repository_routes(catalogue, repository))
    return router


def _server_routes(catalogue: Catalogue) -> APIRouter:
    router = APIRouter()

    @router.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/v2/health/ready")
    async def ready() -> Response:
        waiting = catalogue.waiting_for()
        body: dict[str, Any] = {"live": True, "ready": not waiting}
        if waiting:
            body["waiting_for"] = waiting
        return JSONResponse(body, status_code=503 if waiting else 200)

    @router.get("/v2")
    @router.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        return catalogue.server()

    return router


def _model_routes(catalogue: Catalogue) -> APIRouter:
    router = APIRouter()

    @router.get("/v2/models")
    async def names() -> dict[str, list[str]]:
        return {"models": catalogue.names()}

    # Before the metadata of a model, which would take `stats` for a name.
    @router.get("/v2/models/stats")
    @router.get("/v2/models/{model}/stats")
    @router.get("/v2/models/{model}/versions/{version}/stats")
    async def statistics(model: str | None = None, version: str | None = None) -> dict[str, Any]:
        return await catalogue.statistics(model, version)

    @router.get("/v2/models/{model}")
    @router.get("/v2/models/{model}/versions/{version}")
    async def metadata(model: str, version: str | None = None) -> dict[str, Any]:
        return catalogue.metadata(model, version)

    @router.get("/v2/models/{model}/config")
    @router.get("/v2/models/{model}/versions/{version}/config")
    async def configuration(model: str, version: str | None = None) -> dict[str, Any]:
        return catalogue.configuration(model, version)

    @router.get("/v2/models/{model}/ready")
    @router.get("/v2/models/{model}/versions/{version}/ready")
    async def model_ready(model: str, version: str | None = None) -> dict[str, Any]:
        catalogue.check_ready(model, version)
        return {"name": model, "ready": True}

    return router


def _repository_routes(catalogue: Catalogue, repository: Repository) -> APIRouter:
    router = APIRouter()

    @router.post("/v2/repository/index")
    @router.post("/v2/repository/{repository_name}/index", include_in_schema=False)
    async def index(request: Request) -> list[dict[str, str]]:
        return catalogue.index(only_ready=await _only_ready(request))

    @router.post("/v2/repository/models/{model}/load")
    @router.post("/v2/repository/models/{model}/versions/{version}/load")
    async def load(request: Request, model: str, version: str | None = None) -> Response:
        wanted = read_load(await request.body(), version)
        await repository.load(model, wanted, request.state.actor)
        return Response(status_code=200)

    @router.post("/v2/repository/models/{model}/unload")
    @router.post("/v2/repository/models/{model}/versions/{version}/unload")
    async def unload(request: Request, model: str, version: str | None = None) -> Response:
        wanted = read_unload(await request.body(), version)
        await repository.unload(model, wanted, request.state.actor)
        return Response(status_code=200)

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
