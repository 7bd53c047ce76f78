"""Access keys in the store: kept by digest, one in force per name, every change in the audit trail."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from serving.core.errors import ChangeRefused, NotServed
from serving.core.keys import Key, Scope, digest_of
from serving.store import audit, keys

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = Key(
    id="1",
    name="ann",
    digest=digest_of("secret"),
    scopes=frozenset({Scope.INFER, Scope.READ}),
    models=("digits", "fraud-*"),
    requests_per_second=2.5,
    created_at=NOW,
    created_by="bob",
    expires_at=NOW + timedelta(days=1),
)


def test_create_keeps_every_field_when_read_back(engine: Engine) -> None:
    """With its audit row, which shows no secret and no digest."""
    keys.create(engine, KEY)
    assert keys.active(engine) == [KEY]
    [row] = audit.tail(engine)
    assert (row.entry.action, row.entry.actor) == ("key created", "bob")
    assert dict(row.entry.details) == {
        "name": "ann",
        "scopes": ["infer", "read"],
        "models": ["digits", "fraud-*"],
    }


def test_create_refuses_when_the_name_is_in_force(engine: Engine) -> None:
    """A revoked one gives its name free."""
    keys.create(engine, KEY)
    other = replace(KEY, id="2", digest=digest_of("other"))
    with pytest.raises(ChangeRefused, match="there is a key 'ann' already"):
        keys.create(engine, other)
    keys.revoke(engine, "ann", "carl", NOW)
    keys.create(engine, other)
    assert [key.id for key in keys.active(engine)] == ["2"]
    assert [key.revoked_at for key in keys.listed(engine)] == [NOW, None]


def test_revoke_names_the_keys_when_there_is_no_such_one(engine: Engine) -> None:
    """And records who revoked which."""
    keys.create(engine, KEY)
    with pytest.raises(NotServed, match="there is no key 'zoe'; available: ann"):
        keys.revoke(engine, "zoe", "carl", NOW)
    keys.revoke(engine, "ann", "carl", NOW)
    assert [(row.entry.action, row.entry.actor) for row in audit.tail(engine)] == [
        ("key created", "bob"),
        ("key revoked", "carl"),
    ]


def test_key_survives_json_when_written_and_read() -> None:
    """As the mirror file holds it."""
    assert keys.from_json(keys.as_json(KEY)) == KEY
    bare = replace(KEY, expires_at=None, requests_per_second=None, models=())
    assert keys.from_json(keys.as_json(bare)) == bare
