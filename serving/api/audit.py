"""`GET /api/v2/audit`: the newest rows of the audit trail."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from serving.ledger import Ledger
from serving.store import audit


def audit_routes(ledger: Ledger) -> APIRouter:
    router = APIRouter(tags=["audit"])

    @router.get("/api/v2/audit")
    async def tail(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, model: str | None = None, action: str | None = None
    ) -> dict[str, Any]:
        rows = await ledger.call(lambda engine: audit.tail(engine, limit, model, action))
        return {"rows": [_row(row) for row in rows]}

    return router


def _row(row: audit.AuditRow) -> dict[str, Any]:
    entry = row.entry
    return {
        "seq": row.seq,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "model": entry.model,
        "version": entry.version,
        "details": dict(entry.details),
        "hash": row.hash,
    }
