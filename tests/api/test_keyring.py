"""The keys a server knows: from the admin file, from the store, and from the mirror while that is away."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.api.keyring import AdminKeyFile, KeyMirror, Keyring
from serving.core.clock import ManualClock
from serving.core.keys import Key, Scope, digest_of
from serving.ledger import Ledger
from serving.store import keys
from serving.store.database import open_engine
from serving.store.journal import Journal
from serving.store.trail import Trail
from tests.story import story

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = Key(
    id="1",
    name="ann",
    digest=digest_of("secret"),
    scopes=frozenset({Scope.INFER}),
    created_at=NOW,
    created_by="bob",
)


def keyring_of(home: Path, *, store: str = "signalbox.db") -> tuple[Keyring, Engine]:
    engine = open_engine(f"sqlite:///{home / store}")
    clock = ManualClock()
    ledger = Ledger(engine, Trail(engine, Journal(home / "journal.jsonl"), clock), clock)
    mirror = KeyMirror(home / "serving" / "keys.json")
    return Keyring(AdminKeyFile(home / "admin.key").digest, mirror, ledger), engine


@story
async def test_find_knows_a_key_from_the_store_until_it_is_revoked(home: Path) -> None:
    """As of the next look at the store."""
    keyring, engine = keyring_of(home)
    keys.create(engine, KEY)
    assert keyring.find(digest_of("secret")) is None
    await keyring.refresh()
    assert keyring.find(digest_of("secret")) == KEY
    keys.revoke(engine, "ann", "bob", NOW)
    await keyring.refresh()
    assert keyring.find(digest_of("secret")) is None
    engine.dispose()


@story
async def test_find_knows_the_admin_key_without_any_store(home: Path) -> None:
    """It may do everything."""
    keyring, engine = keyring_of(home, store="none/none.db")
    await keyring.refresh()
    found = keyring.find(digest_of("k" * 43))
    assert found is not None
    assert (found.name, found.scopes) == ("admin", frozenset({Scope.ADMIN}))
    assert keyring.find(digest_of("k" * 42)) is None
    engine.dispose()


@story
async def test_find_knows_mirrored_keys_when_a_server_starts_without_its_store(home: Path) -> None:
    """What the store said last holds."""
    first, engine = keyring_of(home)
    keys.create(engine, KEY)
    await first.refresh()
    engine.dispose()
    assert (home / "serving" / "keys.json").stat().st_mode & 0o777 == 0o600
    second, away = keyring_of(home, store="none/none.db")
    await second.refresh()
    assert second.find(digest_of("secret")) == KEY
    away.dispose()


@pytest.mark.parametrize("spoil", ["open to others", "damaged", "of another shape"])
def test_mirror_counts_for_nothing_when_it_cannot_be_trusted(tmp_path: Path, spoil: str) -> None:
    """A file that somebody else could have written gives nobody a key."""
    mirror = KeyMirror(tmp_path / "keys.json")
    mirror.write([KEY])
    assert mirror.read() == [KEY]
    if spoil == "open to others":
        (tmp_path / "keys.json").chmod(0o640)
    else:
        (tmp_path / "keys.json").write_text("[{" if spoil == "damaged" else '[{"id": 1}]')
    assert mirror.read() == []


def test_keyring_is_empty_when_nobody_could_prove_anything(tmp_path: Path) -> None:
    """Then a server bound beyond loopback refuses to start."""
    mirror = KeyMirror(tmp_path / "keys.json")
    assert Keyring(AdminKeyFile(tmp_path / "admin.key").digest, mirror).is_empty
    mirror.write([replace(KEY, scopes=frozenset({Scope.READ}))])
    assert not Keyring(AdminKeyFile(tmp_path / "admin.key").digest, mirror).is_empty
