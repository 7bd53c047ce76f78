"""Opening, checking, upgrading and writing the state store, on SQLite and on PostgreSQL."""

import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select

from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.store import schema
from serving.store.database import check, insert_new, open_engine, reading, upgrade, writing
from tests.store import children

DIGEST = {"model": "m", "version": "1", "source": "s", "digest": "d", "recorded_at": "now"}


def run_sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def digests_stored(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(schema.digests)).scalar_one()


def alter(engine: Engine, statement: str) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql(statement)


def refusal(url: str) -> str:
    engine = open_engine(url)
    try:
        with pytest.raises(StoreUnusable) as caught:
            check(engine)
        return str(caught.value)
    finally:
        engine.dispose()


def test_check_passes_when_the_store_is_upgraded(engine: Engine) -> None:
    """A fresh store is fine."""
    check(engine)


def test_open_engine_sets_durable_wal_mode_when_on_sqlite(sqlite_engine: Engine) -> None:
    """A committed row survives a power cut, and readers do not wait for writers."""
    with reading(sqlite_engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_upgrade_changes_nothing_when_run_again(store_url: str, engine: Engine) -> None:
    """It may be part of every start."""
    with writing(engine) as connection:
        insert_new(connection, schema.digests, DIGEST)
    upgrade(store_url)
    check(engine)
    assert digests_stored(engine) == 1


def test_upgrade_keeps_the_store_private_when_it_creates_it(tmp_path: Path) -> None:
    """Folders are made, and only the owner reads the file."""
    path = tmp_path / "new" / "folder" / "signalbox.db"
    upgrade(f"sqlite:///{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_upgrade_runs_once_when_threads_and_processes_start_together(blank_url: str) -> None:
    """Replicas that start at the same moment agree on one schema."""
    started = [children.start("upgrade", blank_url) for _ in range(2)]
    threads = [threading.Thread(target=upgrade, args=(blank_url,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in started:
        child.communicate()
        assert child.returncode == 0
    engine = open_engine(blank_url)
    check(engine)
    engine.dispose()


def test_upgrade_names_the_reason_when_the_folder_cannot_be_made(tmp_path: Path) -> None:
    """A file where the folder should be is said plainly."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreUnavailable, match=r"taken/signalbox\.db cannot be written"):
        upgrade(f"sqlite:///{tmp_path / 'taken' / 'signalbox.db'}")


@pytest.mark.fault("F21")
def test_upgrade_leaves_the_old_schema_when_killed_half_way(blank_url: str) -> None:
    """A migration is all or nothing, and the next start carries it out."""
    with children.start("upgrade_half", blank_url) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "tables made, not committed\n"
        child.kill()
    assert "holds no Signalbox tables yet; run `signalbox db upgrade`" in refusal(blank_url)
    upgrade(blank_url)
    engine = open_engine(blank_url)
    check(engine)
    engine.dispose()


def test_upgrade_waits_when_another_process_is_at_it(blank_url: str) -> None:
    """The lock is the database's own, so it also holds between machines."""
    with children.start("upgrade_half", blank_url) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "tables made, not committed\n"
        with children.start("upgrade", blank_url) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(1.0)
            first.communicate("")
            assert (first.returncode, second.wait(60)) == (0, 0)


def test_reading_raises_store_unavailable_when_no_server_listens(tmp_path: Path) -> None:
    """PostgreSQL that is down is a store that is away, and the password stays out of the sentence."""
    engine = open_engine(f"postgresql://me:hidden@/signalbox?host={tmp_path}")
    with pytest.raises(StoreUnavailable, match="did not answer") as caught:
        digests_stored(engine)
    engine.dispose()
    assert "hidden" not in str(caught.value)


def test_check_says_upgrade_when_there_is_no_store(tmp_path: Path) -> None:
    """Looking must not create the file."""
    path = tmp_path / "none.db"
    assert refusal(f"sqlite:///{path}").endswith("does not exist; run `signalbox db upgrade`")
    assert not path.exists()


def test_check_says_upgrade_when_the_file_is_empty(tmp_path: Path) -> None:
    """An empty database is one that was never upgraded."""
    path = tmp_path / "empty.db"
    path.touch()
    assert refusal(f"sqlite:///{path}").endswith("holds no Signalbox tables yet; run `signalbox db upgrade`")


def test_check_says_upgrade_when_the_store_is_older(engine: Engine) -> None:
    """The way from an older release is one command."""
    with pytest.raises(
        StoreUnusable, match=rf"older than this release \(revision {schema.REVISIONS[-1]}, need 9999\); run"
    ):
        check(engine, revisions=(*schema.REVISIONS, "9999"))


def test_check_and_upgrade_refuse_when_the_store_is_newer(store_url: str, engine: Engine) -> None:
    """An old release must not touch what it does not know."""
    alter(engine, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    known = schema.REVISIONS[-1]
    assert f"is newer than this release (revision 9999, known {known}); upgrade signalbox" in refusal(
        store_url
    )
    with pytest.raises(StoreUnusable, match="newer than this release"):
        upgrade(store_url)


def test_check_names_the_tables_when_some_are_missing(store_url: str, engine: Engine) -> None:
    """A half-restored database is noticed at start, not at the first write."""
    alter(engine, "DROP TABLE outbox")
    assert "is damaged: it lacks the tables outbox; stop Signalbox" in refusal(store_url)


def test_check_says_damaged_when_the_file_is_no_database(tmp_path: Path) -> None:
    """Overwritten from the first byte."""
    path = tmp_path / "signalbox.db"
    path.write_bytes(b"this is not a database" * 100)
    assert "is damaged: file is not a database; stop Signalbox and put back a copy" in refusal(
        f"sqlite:///{path}"
    )


@pytest.mark.fault("F21")
def test_check_says_damaged_when_a_page_is_overwritten(sqlite_url: str, tmp_path: Path) -> None:
    """Damage behind an intact first page."""
    path = tmp_path / "signalbox.db"
    run_sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    path.write_bytes(content)
    assert "is damaged: " in refusal(sqlite_url)


def test_reading_says_upgrade_when_a_table_is_missing(engine: Engine) -> None:
    """A query on a store that lacks it names the way out."""
    alter(engine, "DROP TABLE digests")
    with pytest.raises(StoreUnusable, match="run `signalbox db upgrade`"):
        digests_stored(engine)


def test_reading_raises_store_unavailable_when_the_file_cannot_be_opened(tmp_path: Path) -> None:
    """No driver error leaves the store, and the place is named."""
    engine = open_engine(f"sqlite:///{tmp_path / 'no' / 'folder.db'}")
    with pytest.raises(StoreUnavailable, match=r"no/folder\.db did not answer: unable to open"):
        digests_stored(engine)
    engine.dispose()


def test_writing_keeps_nothing_when_the_block_raises(engine: Engine) -> None:
    """All of a transaction or none."""

    def fail_after_insert() -> None:
        with writing(engine) as connection:
            connection.execute(insert(schema.digests).values(DIGEST))
            raise LookupError

    with pytest.raises(LookupError):
        fail_after_insert()
    assert digests_stored(engine) == 0


def test_writing_takes_turns_when_another_writer_is_at_work(engine: Engine) -> None:
    """The second writer waits at its start and sees what the first wrote."""
    inside, order = threading.Event(), list[str]()

    def second() -> None:
        inside.wait()
        with writing(engine) as connection:
            order.append(f"second sees {connection.execute(select(schema.digests.c.digest)).scalar()}")

    thread = threading.Thread(target=second)
    thread.start()
    with writing(engine) as connection:
        inside.set()
        connection.execute(insert(schema.digests).values(DIGEST))
        order.append("first")
    thread.join()
    assert order == ["first", "second sees d"]


def test_insert_new_reports_false_when_the_row_exists(engine: Engine) -> None:
    """A collision is an answer, not an error, and leaves the transaction usable."""
    with writing(engine) as connection:
        assert insert_new(connection, schema.digests, DIGEST)
        assert not insert_new(connection, schema.digests, DIGEST)
        assert insert_new(connection, schema.digests, {**DIGEST, "version": "2"})


@pytest.mark.parametrize(
    "url", ["mysql://user:hidden@host/db", "carrier-pigeon://user:hidden@host", "hidden"]
)
def test_open_engine_names_the_choices_when_the_url_is_of_another_kind(url: str) -> None:
    """The answer says what would work and never shows a password."""
    with pytest.raises(StoreUnusable, match="SIGNALBOX_STORE_URL") as caught:
        open_engine(url)
    assert "hidden" not in str(caught.value)


def test_store_modules_import_light_when_serving_starts() -> None:
    """Serving's start-up must not pay for Alembic, NumPy or the flows' libraries."""
    names = "audit changes database digests durable journal leases outbox overrides schema text trail"
    program = (
        f"import sys; from serving.store import {', '.join(names.split())}; "
        "print([n for n in ('alembic', 'numpy', 'pandas', 'mlflow', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
