"""`GET /api/v2/model-health`: 200 however bad the health is, from state that the probes keep."""

from typing import Any

from fastapi import APIRouter

from serving.core.errors import NotServed
from serving.health import Health


def health_routes(health: Health) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/api/v2/model-health")
    async def model_health(model: str | None = None) -> dict[str, Any]:
        status, reports = health.all(model)
        if model is not None and not reports:
            raise NotServed(f"model '{model}' is not followed", exists=health.names())
        return {"status": str(status), "models": [report.as_json() for report in reports]}

    return router
