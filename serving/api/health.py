"""`GET /api/v2/model-health`: 200 however bad the health is, from state that the probes keep."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from serving.core.errors import NotServed
from serving.fleet.channel import Told
from serving.fleet.opinion import overall, together
from serving.health import Health


def health_routes(health: Health, others: Callable[[], list[Told]]) -> APIRouter:
    """`others` is what the server's other workers reported last."""
    router = APIRouter(tags=["models"])

    @router.get("/api/v2/model-health")
    async def model_health(model: str | None = None) -> dict[str, Any]:
        own = [report.as_json() for report in health.all(model)[1]]
        told = [entry for report in others() for entry in report["health"]]
        models = together(own, [entry for entry in told if model in (None, entry["model"])])
        if model is not None and not models:
            raise NotServed(f"model '{model}' is not followed", exists=health.names())
        return {"status": overall(models), "models": models}

    return router
