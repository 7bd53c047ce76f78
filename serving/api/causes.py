"""`GET /api/v2/errors`: the causes of failed inferences, each once, with one full example."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from serving.ledger import Ledger
from serving.store import failures
from serving.store.failures import MAX_PER_MODEL, Cause


def error_routes(ledger: Ledger) -> APIRouter:
    router = APIRouter(tags=["errors"])

    @router.get("/api/v2/errors")
    async def errors(
        model: str | None = None,
        version: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PER_MODEL)] = 50,
    ) -> dict[str, Any]:
        found = await ledger.look(lambda engine: failures.recent(engine, model, version, limit))
        return {"errors": [_told(cause) for cause in found]}

    return router


def brief(cause: Cause) -> dict[str, Any]:
    """What may be shown to anybody: neither messages nor inputs, which a model could put anything into."""
    return {
        "fingerprint": cause.fingerprint,
        "error": cause.error,
        "count": cause.times,
        "first_seen_at": cause.first_seen_at.isoformat(),
        "last_seen_at": cause.last_seen_at.isoformat(),
    }


def _told(cause: Cause) -> dict[str, Any]:
    return {
        **brief(cause),
        "model": cause.ref.model,
        "version": cause.ref.version,
        "place": cause.place,
        "message": cause.message,
        "inputs": cause.inputs,
        "request_id": cause.request_id,
        "traceback": cause.traceback,
    }
