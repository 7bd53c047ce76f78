"""Policies of single models: limits and thresholds that the store holds, each change audited.

A policy is a name and a JSON object. The defaults are in files and settings; what is here goes before
them, and what a request names goes before this.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, update

from serving.store import audit, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.text import JsonValue, json_text, time_text

_table = schema.policies

PROMOTION = "promotion"
"""Limits and stages that every promotion of the model works under unless it names others."""

JUDGE = "judge"
"""Limits by which stages of live traffic are judged, before those of the policy file."""

HEALTH = "health"
"""Thresholds of the model's health, before those of the settings."""


def of_model(engine: Engine, model: str) -> dict[str, dict[str, Any]]:
    """Every policy of a model by name."""
    with reading(engine) as connection:
        rows = connection.execute(select(_table).where(_table.c.model == model).order_by(_table.c.name))
        return {row.name: json.loads(row.body) for row in rows}


def listed(engine: Engine) -> dict[str, dict[str, dict[str, Any]]]:
    """Every policy that is kept, by model and name."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with reading(engine) as connection:
        for row in connection.execute(select(_table).order_by(_table.c.model, _table.c.name)):
            found.setdefault(row.model, {})[row.name] = json.loads(row.body)
    return found


def get(connection: Connection, model: str, name: str) -> dict[str, Any]:
    """One policy, empty where none is kept; part of the caller's transaction."""
    is_it = (_table.c.model == model, _table.c.name == name)
    body = connection.execute(select(_table.c.body).where(*is_it)).scalar()
    return {} if body is None else dict(json.loads(body))


def put(
    engine: Engine, model: str, name: str, body: Mapping[str, JsonValue] | None, actor: str, now: datetime
) -> bool:
    """Keep a policy in place of an earlier one; None drops it. Whether anything changed."""
    is_it = (_table.c.model == model, _table.c.name == name)
    with writing(engine) as connection:
        row = connection.execute(select(_table).where(*is_it)).one_or_none()
        before = None if row is None else json.loads(row.body)
        if before == (None if body is None else json.loads(json_text(body))):
            return False
        if body is None:
            connection.execute(delete(_table).where(*is_it))
        else:
            values = {"body": json_text(body), "updated_at": time_text(now), "updated_by": actor}
            if not insert_new(connection, _table, {"model": model, "name": name, **values}):
                connection.execute(update(_table).where(*is_it).values(values))
        details: dict[str, JsonValue] = {"policy": name, "from": before, "to": body}
        audit.append(
            connection, AuditEntry(action="policy", actor=actor, model=model, details=details, at=now)
        )
    return True
