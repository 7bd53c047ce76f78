"""The audit chain: kept in order by any number of writers, and no byte of it changes unseen."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from serving.core.errors import StoreUnusable
from serving.store import audit
from serving.store.audit import AuditEntry, AuditRow, Verdict
from serving.store.database import open_engine, upgrade, writing
from tests.store import children
from tests.store.children import entry

ROWS = 6
COLUMNS = ("text", "prev_hash", "hash", "entry_id", "at", "action", "actor", "model", "version")


def append(engine: Engine, *entries: AuditEntry) -> list[AuditRow]:
    with writing(engine) as connection:
        return [audit.append(connection, one) for one in entries]


def run_sql(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def tamper(engine: Engine, statement: str) -> None:
    """Change the trail behind its back, whatever the database."""
    with writing(engine) as connection:
        connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Engine]]:
    """A chain of six rows that tests change and put right again."""
    path = tmp_path_factory.mktemp("chain") / "signalbox.db"
    upgrade(f"sqlite:///{path}")
    engine = open_engine(f"sqlite:///{path}")
    append(engine, *(entry("load", "Zoë", model=f"modèle-{number}", version="1") for number in range(ROWS)))
    yield path, engine
    engine.dispose()


@pytest.fixture
def six_rows(engine: Engine) -> Engine:
    append(engine, *(entry("load", model=f"m{number}", version="1") for number in range(ROWS)))
    return engine


@settings(max_examples=300, deadline=None)
@given(
    seq=st.integers(1, ROWS), name=st.sampled_from(COLUMNS), place=st.integers(0), other=st.integers(1, 255)
)
def test_verify_names_the_row_when_any_byte_of_it_changes(
    chain: tuple[Path, Engine], seq: int, name: str, place: int, other: int
) -> None:
    """Whatever byte, of whatever column, becomes whatever other byte, valid text or not."""
    path, engine = chain
    with closing(sqlite3.connect(path)) as connection:
        select = f"SELECT CAST({name} AS BLOB) FROM audit WHERE seq = ?"
        before: bytes = connection.execute(select, (seq,)).fetchone()[0]
    changed = bytearray(before)
    changed[place % len(before)] ^= other
    update = f"UPDATE audit SET {name} = CAST(? AS TEXT) WHERE seq = ?"
    run_sql(path, update, bytes(changed), seq)
    try:
        found = audit.verify(engine)
    finally:
        run_sql(path, update, before, seq)
    assert (found.verdict, found.first_broken) == (Verdict.BROKEN, seq), found.reason
    assert audit.verify(engine).verdict is Verdict.INTACT


def test_verify_is_intact_when_nothing_was_ever_recorded(engine: Engine) -> None:
    """An empty trail is a whole one."""
    found = audit.verify(engine)
    assert (found.verdict, found.rows, found.first_broken) == (Verdict.INTACT, 0, None)


@pytest.mark.parametrize(
    ("statement", "first_broken"),
    [
        pytest.param("DELETE FROM audit WHERE seq = 1", 1, id="first-row-removed"),
        pytest.param("DELETE FROM audit WHERE seq = 3", 3, id="row-removed"),
        pytest.param("DELETE FROM audit WHERE seq > 4", 5, id="end-cut-off"),
        pytest.param("DELETE FROM audit", 1, id="all-removed"),
        pytest.param("UPDATE audit SET seq = 60 WHERE seq = 3", 3, id="row-moved-to-the-end"),
        pytest.param("UPDATE audit SET model = NULL WHERE seq = 2", 2, id="column-emptied"),
        pytest.param("UPDATE audit_head SET seq = 5", 6, id="head-set-back"),
        pytest.param("UPDATE audit_head SET seq = 9", 7, id="head-set-forward"),
        pytest.param("UPDATE audit_head SET hash = 'x'", 6, id="head-hash-changed"),
        pytest.param("DELETE FROM audit_head", None, id="head-removed"),
    ],
)
def test_verify_is_broken_when_rows_or_the_head_are_tampered_with(
    six_rows: Engine, statement: str, first_broken: int | None
) -> None:
    """Removal, reordering and a cut-off end show as well as a changed text."""
    tamper(six_rows, statement)
    found = audit.verify(six_rows)
    assert (found.verdict, found.first_broken) == (Verdict.BROKEN, first_broken), found.reason


def test_verify_is_broken_when_text_was_made_binary(sqlite_engine: Engine, tmp_path: Path) -> None:
    """SQLite takes any value in any column."""
    append(sqlite_engine, entry("load"), entry("load"))
    run_sql(tmp_path / "signalbox.db", "UPDATE audit SET text = x'00ff' WHERE seq = 2")
    assert audit.verify(sqlite_engine).first_broken == 2


def test_verify_names_the_first_row_when_several_are_changed(six_rows: Engine) -> None:
    """The first wrong row is where to look."""
    tamper(six_rows, "UPDATE audit SET actor = 'nobody' WHERE seq IN (3, 5)")
    found = audit.verify(six_rows)
    assert (found.first_broken, found.rows) == (3, 2)
    assert found.reason == "row 3: column actor differs from the text"


def test_verify_reads_on_when_the_trail_is_longer_than_one_batch(engine: Engine) -> None:
    """A long trail is read in pieces, without losing the thread."""
    append(engine, *(entry("load") for _ in range(2001)))
    assert audit.verify(engine).rows == 2001
    tamper(engine, "UPDATE audit SET actor = 'nobody' WHERE seq = 2000")
    assert audit.verify(engine).first_broken == 2000


def test_append_records_once_when_the_same_entry_comes_again(engine: Engine) -> None:
    """A repeated merge of the journal changes nothing."""
    first = entry("load")
    assert append(engine, first) == append(engine, first)
    assert audit.verify(engine).rows == 1


def test_append_keeps_nothing_when_its_transaction_fails(engine: Engine) -> None:
    """The entry lives and dies with the fact it reports."""

    def fail_after_append() -> None:
        with writing(engine) as connection:
            audit.append(connection, entry("load"))
            raise LookupError

    with pytest.raises(LookupError):
        fail_after_append()
    assert audit.verify(engine).rows == 0


def test_append_refuses_when_the_head_row_is_gone(engine: Engine) -> None:
    """A new chain is never begun over a damaged one."""
    tamper(engine, "DELETE FROM audit_head")
    with pytest.raises(StoreUnusable, match="lost its head row; put back a copy"):
        append(engine, entry("load"))


def test_append_keeps_one_chain_when_threads_and_processes_write_at_once(
    engine: Engine, store_url: str
) -> None:
    """Four threads and two processes: every entry is there once and the chain holds."""
    started = [children.start("append", store_url, f"process-{number}", "25") for number in range(2)]

    def work(actor: str) -> None:
        for _ in range(25):
            append(engine, entry("load", actor))

    threads = [threading.Thread(target=work, args=(f"thread-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in started:
        child.communicate()
        assert child.returncode == 0
    found = audit.verify(engine)
    assert (found.verdict, found.rows) == (Verdict.INTACT, 150)


def test_tail_gives_the_last_matching_rows_when_filtered(six_rows: Engine) -> None:
    """Newest last; by model and by action."""
    append(six_rows, entry("alias", model="m1", version="2"))
    assert [row.seq for row in audit.tail(six_rows, limit=2)] == [6, 7]
    assert [row.seq for row in audit.tail(six_rows, model="m1")] == [2, 7]
    assert [row.seq for row in audit.tail(six_rows, model="m1", action="alias")] == [7]
    assert audit.tail(six_rows, model="unknown") == []


def test_tail_gives_entries_back_as_appended_when_read(engine: Engine) -> None:
    """Details, time and id survive the way through the database."""
    given_entry = AuditEntry(
        action="alias", actor="Zoë", details={"from": None, "list": [1, 2.5, True]}, at=entry("x").at
    )
    [row] = append(engine, given_entry)
    assert row.entry == given_entry
    assert audit.tail(engine) == [row]


def test_tail_shows_a_row_when_its_text_is_unreadable(six_rows: Engine) -> None:
    """A damaged trail can still be looked at."""
    tamper(six_rows, "UPDATE audit SET text = 'gone' WHERE seq = 6")
    assert audit.tail(six_rows, limit=1)[0].entry.details == {"unreadable": "gone"}
