"""Homes of servers for tests: an admin key and an empty store."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "k" * 43


def prepare_home(home: Path, template: Path) -> Path:
    """A home with an admin key and an empty store, copied because migrating takes longer than a test."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(template, home / "signalbox.db")
    write_admin_key(home)
    return home


def write_admin_key(home: Path) -> None:
    key = os.open(home / "admin.key", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(key, KEY.encode())
    os.close(key)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Somebody else writes to the SQLite file and does not come to an end."""
    connection = sqlite3.connect(home / "signalbox.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()
