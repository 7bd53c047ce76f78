"""What the crash and concurrency tests run in processes of their own.

Started as `python -m tests.store.children <action> <arguments>`; each line printed is a promise that
what it names is on disk.
"""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from sqlalchemy import Connection, Engine, event

from serving.core.clock import SystemClock
from serving.store import audit, changes, schema
from serving.store.audit import AuditEntry
from serving.store.changes import ChangeIntent
from serving.store.database import open_engine, upgrade, writing
from serving.store.journal import Journal
from serving.store.leases import Lease, Leases

_ROOT = Path(__file__).parents[2]


def start(action: str, *arguments: str) -> subprocess.Popen[str]:
    """Start one of the actions below; its standard input stays open until the caller closes it."""
    command = [sys.executable, "-m", "tests.store.children", action, *arguments]
    return subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def entry(
    action: str, actor: str = "tester", model: str | None = None, version: str | None = None
) -> AuditEntry:
    """An audit entry at a fixed time."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return AuditEntry(action=action, actor=actor, model=model, version=version, at=at)


def _append(url: str, actor: str, times: str) -> None:
    engine = open_engine(url)
    for _ in range(int(times)):
        with writing(engine) as connection:
            audit.append(connection, entry("load", actor))
    engine.dispose()


def _journal(path: str) -> None:
    journal = Journal(Path(path))
    for number in count():
        journal.append(entry("load", f"actor-{number}"))
        print(number, flush=True)


def _intend(url: str, model: str) -> None:
    engine = open_engine(url)
    lease = Leases(engine, SystemClock()).acquire(f"model:{model}", "child")
    assert isinstance(lease, Lease)
    intent = ChangeIntent(model, "champion", "1", "2", lease.epoch, "child", "a test")
    print(changes.intend(engine, intent, lease), flush=True)
    sys.stdin.read()


def _upgrade_half(url: str) -> None:
    """Stop inside the migration's transaction until standard input closes, then end it well."""

    @event.listens_for(Engine, "commit")
    def before_commit(connection: Connection) -> None:
        if connection.dialect.has_table(connection, schema.VERSION_TABLE):
            print("tables made, not committed", flush=True)
            sys.stdin.read()

    upgrade(url)


if __name__ == "__main__":
    actions: dict[str, Callable[..., None]] = {
        "append": _append,
        "journal": _journal,
        "intend": _intend,
        "upgrade": upgrade,
        "upgrade_half": _upgrade_half,
    }
    actions[sys.argv[1]](*sys.argv[2:])
