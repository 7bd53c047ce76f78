"""The framework for everything but inference: documents itself, and answers errors in our one form."""

import asyncio

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from serving.api.errors import failure_of
from serving.protocol.documentation import DocumentedApi
from serving.telemetry.metrics import Metrics


def framework_with(metrics: Metrics) -> FastAPI:
    """The application that the routes are added to; `/metrics` is there already."""
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
        metrics.look()
        text = await asyncio.to_thread(metrics.exposition)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return framework
