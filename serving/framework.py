"""The framework for everything but inference: documents itself, and answers errors in our one form."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serving.api.errors import failure_of
from serving.protocol.documentation import DocumentedApi
from serving.telemetry.exposition import Family, text
from serving.telemetry.metrics import Metrics

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def takes(framework: FastAPI) -> Callable[[Mapping[str, object]], bool]:
    """Whether a route is there for method and path of an ASGI scope."""

    def is_routed(scope: Mapping[str, object]) -> bool:
        return any(route.matches(dict(scope))[0] is Match.FULL for route in framework.routes)

    return is_routed


def framework_with(metrics: Metrics, of_server: Callable[[], Awaitable[list[Family] | None]]) -> FastAPI:
    """The application that the routes are added to; `/metrics` is there already.

    `of_server` gives the numbers of all workers where there are several.
    """
    framework = DocumentedApi(title="Signalbox serving", redoc_url=None)

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = {404: "no such endpoint; see /docs", 405: "method not allowed here; see /docs"}
        message = sentence.get(error.status_code, str(error.detail))
        return JSONResponse({"error": message}, error.status_code, headers=dict(error.headers or {}))

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 400)

    async def on_other(_: Request, error: Exception) -> Response:
        failure = failure_of(error)
        return JSONResponse({"error": failure.message}, failure.status, headers=dict(failure.headers))

    framework.add_exception_handler(HTTPException, on_http)
    framework.add_exception_handler(RequestValidationError, on_invalid)
    framework.add_exception_handler(Exception, on_other)

    @framework.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        if (families := await of_server()) is not None:
            return Response(await asyncio.to_thread(text, families), media_type=_PROMETHEUS)
        metrics.look()
        own = await asyncio.to_thread(metrics.exposition)
        return Response(own, media_type=_PROMETHEUS)

    return framework
