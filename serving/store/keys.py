"""Access keys in the state store. Only digests are kept, so reading the store opens no door.

Written by the command line, each change with its audit row; read by every serving process.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, select, update

from serving.core.errors import ChangeRefused, NotServed
from serving.core.keys import Key, Scope
from serving.store import audit, schema
from serving.store.audit import AuditEntry
from serving.store.database import insert_new, reading, writing
from serving.store.text import json_text, read_optional_time, read_time, time_text

_table = schema.keys


def create(engine: Engine, key: Key) -> None:
    """Keep a new key. Raises `ChangeRefused` while another of its name is not revoked."""
    with writing(engine) as connection:
        if not insert_new(connection, _table, _values(key)):
            raise ChangeRefused(f"there is a key '{key.name}' already; revoke it, or choose another name")
        audit.append(connection, _entry("key created", key, key.created_by, key.created_at))


def revoke(engine: Engine, name: str, actor: str, now: datetime) -> Key:
    """Withdraw the key of this name. Raises `NotServed` naming those there are."""
    with writing(engine) as connection:
        rows = connection.execute(select(_table).where(_table.c.revoked_at.is_(None))).all()
        found = next((row for row in rows if row.name == name), None)
        if found is None:
            raise NotServed(f"there is no key '{name}'", exists=sorted(row.name for row in rows))
        withdrawn = {"revoked_at": time_text(now), "active_name": None}
        connection.execute(update(_table).where(_table.c.id == found.id).values(withdrawn))
        key = _key(found)
        audit.append(connection, _entry("key revoked", key, actor, now))
    return key


def active(engine: Engine) -> list[Key]:
    """Keys that are not revoked, expired ones included: whoever checks one knows the time."""
    return [key for key in listed(engine) if key.revoked_at is None]


def listed(engine: Engine) -> list[Key]:
    """Every key there ever was, oldest first."""
    with reading(engine) as connection:
        rows = connection.execute(select(_table).order_by(_table.c.created_at, _table.c.id))
        return [_key(row) for row in rows]


def as_json(key: Key) -> dict[str, Any]:
    """A key for a file or an answer; `digest` tells nobody the secret."""
    return {
        "id": key.id,
        "name": key.name,
        "digest": key.digest,
        "scopes": sorted(key.scopes),
        "models": list(key.models),
        "requests_per_second": key.requests_per_second,
        "created_at": time_text(key.created_at),
        "created_by": key.created_by,
        "expires_at": time_text(key.expires_at) if key.expires_at else None,
        "revoked_at": time_text(key.revoked_at) if key.revoked_at else None,
    }


def from_json(told: Mapping[str, Any]) -> Key:
    """The key `as_json` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
    return Key(
        id=str(told["id"]),
        name=str(told["name"]),
        digest=str(told["digest"]),
        scopes=frozenset(Scope(scope) for scope in told["scopes"]),
        models=tuple(told["models"]),
        requests_per_second=told["requests_per_second"],
        created_at=read_time(told["created_at"]),
        created_by=str(told["created_by"]),
        expires_at=read_optional_time(told["expires_at"]),
        revoked_at=read_optional_time(told["revoked_at"]),
    )


def _values(key: Key) -> dict[str, Any]:
    told = as_json(key)
    told |= {"scopes": json_text(told["scopes"]), "models": json_text(told["models"])}
    return told | {"active_name": key.name}


def _key(row: Row[Any]) -> Key:
    told = dict(row._mapping)
    return from_json(told | {"scopes": json.loads(row.scopes), "models": json.loads(row.models)})


def _entry(action: str, key: Key, actor: str, at: datetime) -> AuditEntry:
    details = {"name": key.name, "scopes": sorted(key.scopes), "models": list(key.models)}
    return AuditEntry(action=action, actor=actor, details=details, at=at)
