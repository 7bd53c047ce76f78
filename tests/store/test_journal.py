"""The journal keeps audit entries through crashes and gives them to the trail once."""

import shutil
import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.errors import StoreUnavailable
from serving.store import audit
from serving.store.audit import Verdict
from serving.store.database import open_engine
from serving.store.durable import exclusive
from serving.store.journal import Journal
from tests.store import children
from tests.store.children import entry


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "home" / "journal.jsonl")


def actors(engine: Engine) -> list[str]:
    assert audit.verify(engine).verdict is Verdict.INTACT
    return [row.entry.actor for row in audit.tail(engine, limit=100_000)]


def test_merge_moves_entries_in_order_when_there_are_some(journal: Journal, engine: Engine) -> None:
    """Each keeps its time and details and is marked."""
    journal.append(entry("load", "a", model="m", version="1"))
    journal.append(entry("alias", "b"))
    assert not journal.is_empty()
    assert journal.merge(engine) == 2
    first, second = (row.entry for row in audit.tail(engine))
    assert (first.actor, first.model, first.details) == ("a", "m", {"journalled": True})
    assert (second.actor, second.at) == ("b", entry("x").at)
    assert journal.is_empty()
    assert journal.merge(engine) == 0


def test_append_keeps_the_file_private_when_it_creates_it(journal: Journal) -> None:
    """The trail names people and reasons."""
    journal.append(entry("load"))
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_merge_keeps_the_rest_when_the_last_line_is_torn(journal: Journal, engine: Engine) -> None:
    """A crash in the middle of a line costs that line only, and the trail shows what is left of it."""
    journal.append(entry("load", "before"))
    with journal.path.open("ab") as file:
        file.write(b'{"action":"load","actor":"to')
    journal.append(entry("load", "after"))
    assert journal.merge(engine) == 3
    assert actors(engine) == ["before", "signalbox", "after"]
    torn = audit.tail(engine)[1].entry
    assert (torn.action, torn.details["unreadable"]) == ("journal", '{"action":"load","actor":"to')


def test_merge_takes_a_last_line_when_only_its_end_is_missing(journal: Journal, engine: Engine) -> None:
    """A complete entry counts without its line break."""
    journal.append(entry("load", "whole"))
    journal.path.write_bytes(journal.path.read_bytes().rstrip(b"\n"))
    assert journal.merge(engine) == 1
    assert actors(engine) == ["whole"]


def test_merge_keeps_going_when_a_line_is_damaged(journal: Journal, engine: Engine) -> None:
    """Bytes that are no text do not hide the entries around them."""
    journal.append(entry("load", "before"))
    with journal.path.open("ab") as file:
        file.write(b'\x00\xff\n["not an entry"]\n{"action": 1}\n')
    journal.append(entry("load", "after"))
    assert journal.merge(engine) == 5
    assert actors(engine) == ["before", "signalbox", "signalbox", "signalbox", "after"]


def test_merge_records_once_when_it_died_before_emptying(journal: Journal, engine: Engine) -> None:
    """Entries that were committed while the file was still there are not doubled."""
    journal.append(entry("load", "once"))
    kept = journal.path.with_name("kept")
    shutil.copy(journal.path, kept)
    journal.merge(engine)
    shutil.move(kept, journal.path.with_name(journal.path.name + ".merging"))
    journal.append(entry("load", "later"))
    assert journal.merge(engine) == 2
    assert actors(engine) == ["once", "later"]


def test_merge_keeps_every_entry_when_the_store_is_away(
    journal: Journal, engine: Engine, tmp_path: Path
) -> None:
    """A failed merge is repeated later, with what came meanwhile."""
    away = open_engine(f"sqlite:///{tmp_path / 'no' / 'folder.db'}")
    journal.append(entry("load", "first"))
    with pytest.raises(StoreUnavailable):
        journal.merge(away)
    away.dispose()
    assert not journal.is_empty()
    journal.append(entry("load", "second"))
    assert journal.merge(engine) == 2
    assert actors(engine) == ["first", "second"]


def test_merge_leaves_the_work_when_somebody_else_merges(journal: Journal, engine: Engine) -> None:
    """Two replicas on one home do not wait for one another."""
    journal.append(entry("load"))
    with exclusive(journal.path.with_name(journal.path.name + ".merge.lock")):
        assert journal.merge(engine) == 0
    assert journal.merge(engine) == 1


def test_merge_loses_nothing_when_threads_append_meanwhile(journal: Journal, engine: Engine) -> None:
    """An entry is in the file or in the trail, whatever the moment."""

    def work(name: str) -> None:
        for number in range(50):
            journal.append(entry("load", f"{name}-{number}"))

    threads = [threading.Thread(target=work, args=(f"thread-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        journal.merge(engine)
    journal.merge(engine)
    assert len(actors(engine)) == len(set(actors(engine))) == 150


def test_append_loses_nothing_it_promised_when_the_process_is_killed(
    journal: Journal, engine: Engine
) -> None:
    """kill -9 in the middle of a stream of entries."""
    with children.start("journal", str(journal.path)) as child:
        assert child.stdout is not None
        promised = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
        promised += [int(line) for line in child.stdout if line.endswith("\n")]
    journal.merge(engine)
    assert set(actors(engine)) >= {f"actor-{number}" for number in promised}
