"""The payload digest of each version as first seen, for versions whose registry tag does not name one.

The first writer wins, so a payload that changes later is noticed by every replica.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, select

from serving.store import schema
from serving.store.database import insert_new, reading, writing
from serving.store.text import time_text

_table = schema.digests


def recorded(engine: Engine, model: str, version: str, source: str) -> str | None:
    """The digest on record for this version's artifact at `source`, None if it was never loaded."""
    with reading(engine) as connection:
        return _stored(connection, model, version, source)


def record(
    engine: Engine, model: str, version: str, source: str, digest: str, *, now: datetime | None = None
) -> str:
    """Put a digest on record and return the one that is: an earlier one stays."""
    values = {
        "model": model,
        "version": version,
        "source": source,
        "digest": digest,
        "recorded_at": time_text(now or datetime.now(UTC)),
    }
    with writing(engine) as connection:
        if insert_new(connection, _table, values):
            return digest
        return _stored(connection, model, version, source) or digest


def _stored(connection: Connection, model: str, version: str, source: str) -> str | None:
    key = (_table.c.model == model, _table.c.version == version, _table.c.source == source)
    digest: str | None = connection.execute(select(_table.c.digest).where(*key)).scalar()
    return digest
