"""The access keys a server knows: the home's admin key, and those of the state store.

Answered from memory; the store is asked every two seconds, so a revocation holds within five. What it
said last is mirrored into a private file, from which keys work while the store is away.
"""

import asyncio
import json
import logging
import stat
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from serving.core.errors import StoreUnavailable
from serving.core.keys import Key, Scope
from serving.ledger import Ledger
from serving.store import keys as stored
from serving.store.durable import write_atomically

log = logging.getLogger(__name__)

ADMIN = "admin"
_REFRESH_SECONDS = 2.0


class AdminKeyFile:
    """The admin key on disk. Read again when the file changes, so that a new key works at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._digest: str | None = None

    def digest(self) -> str | None:
        """SHA-256 of the key in hex, or None where there is none that only its owner can read."""
        try:
            found = self._path.stat()
        except OSError:
            self._stamp = self._digest = None
            return None
        stamp = (found.st_ctime_ns, found.st_ino)  # also a changed mode changes the former
        if stamp != self._stamp:
            key = self._read()
            is_private = not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            self._digest = sha256(key).hexdigest() if key and is_private else None
            self._stamp = stamp
        return self._digest

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes().strip()
        except OSError:
            return b""


class KeyMirror:
    """The file that keeps what the store said last. Only its owner may read it, or it counts for nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Key]:
        """The mirrored keys; none where the file is missing, damaged, or open to others."""
        try:
            if self._path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                log.warning("key_mirror_not_private path=%s", self._path)
                return []
            return [stored.from_json(told) for told in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("key_mirror_unreadable path=%s reason=%r", self._path, error)
            return []

    def write(self, keys: Iterable[Key]) -> None:
        write_atomically(self._path, json.dumps([stored.as_json(key) for key in keys]).encode(), 0o600)


class Keyring:
    """Confined to the event loop's thread. `admin_digest` is asked each time: it follows a file."""

    def __init__(
        self, admin_digest: Callable[[], str | None], mirror: KeyMirror, ledger: Ledger | None = None
    ) -> None:
        self._admin_digest = admin_digest
        self._mirror = mirror
        self._ledger = ledger
        self._mirrored = mirror.read()
        self._by_digest = {key.digest: key for key in self._mirrored}

    @property
    def is_empty(self) -> bool:
        """Whether nobody could prove anything here."""
        return not self._by_digest and self._admin_digest() is None

    def find(self, digest: str) -> Key | None:
        """The key whose secret has this digest, so time tells nothing about the secret."""
        key = self._by_digest.get(digest)
        # The admin file is looked at for every other key only: that is a call to the kernel, which slows
        # down what a busy caller's request does after it more than by the time that it takes itself.
        if key is None and digest == self._admin_digest():
            return _admin_key(digest)
        return key

    async def run(self) -> None:
        """Ask the store again and again until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception:  # the keys known so far hold; the loop must outlive any single turn
                log.exception("keys_not_refreshed")
            await asyncio.sleep(_REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Learn what the store says now; keeps what is known while it says nothing."""
        assert self._ledger is not None
        try:
            keys = await self._ledger.look(stored.active)
        except StoreUnavailable as error:
            log.debug("keys_kept reason=%s", error)
            return
        self._by_digest = {key.digest: key for key in keys}
        if keys != self._mirrored:
            self._mirrored = keys
            await asyncio.to_thread(self._save, keys)

    def _save(self, keys: list[Key]) -> None:
        try:
            self._mirror.write(keys)
        except OSError as error:
            log.warning("key_mirror_not_written reason=%s", error)


def _admin_key(digest: str) -> Key:
    made = datetime.fromtimestamp(0, UTC)
    scopes = frozenset({Scope.ADMIN})
    return Key(id=ADMIN, name=ADMIN, digest=digest, scopes=scopes, created_at=made, created_by=ADMIN)
