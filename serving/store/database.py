"""Opens, checks, upgrades and writes the state store; the only module that knows the SQL dialects.

Every other module of the store goes through `reading` and `writing`. Whatever a driver raises leaves
here as `StoreUnavailable`, and what needs a repair as `StoreUnusable` with the repair named.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, column, create_engine, event, inspect, select, table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from sqlalchemy.pool import ConnectionPoolEntry

from serving.core.errors import StoreUnavailable, StoreUnusable
from serving.store import schema

_WAIT_SECONDS = 5
_WRITES = "signalbox_writes"
_UPGRADE_LOCK_KEY = 7_310_264_958
_UPGRADE_STEP = "run `signalbox db upgrade`"
_RESTORE_STEP = "stop Signalbox and put back a copy of the database made before the damage"
_URL_STEP = "set SIGNALBOX_STORE_URL to sqlite:///<file> or postgresql://<user>:<password>@<host>/<database>"
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MIGRATIONS = Path(__file__).parent / "migrations"

# Alembic keeps the running migration in module globals, so one process runs one at a time.
_one_upgrade = threading.Lock()


def open_engine(url: str) -> Engine:
    """A thread-safe engine. Connects lazily: an unreachable database is noticed at first use."""
    parsed = _parse(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(parsed)
        return _open_postgresql(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise _unsupported(parsed, error) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reads; nothing done on it is kept."""
    with translate_errors(_place(engine)), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed when the block ends well and undone when it raises.

    On SQLite it takes the write lock at its start, so writers queue instead of failing half-way.
    """
    with translate_errors(_place(engine)), engine.connect() as connection:
        connection.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


def insert_new(connection: Connection, target: Table, values: Mapping[str, object]) -> bool:
    """Insert one row unless it collides with an existing one; whether it was inserted."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(target).values(values).on_conflict_do_nothing()
    # Asked for by RETURNING: on PostgreSQL the row count of an insert is not always known.
    return connection.execute(statement.returning(*target.primary_key)).first() is not None


@contextmanager
def translate_errors(place: str = "the state store") -> Iterator[None]:
    """Let whatever the driver raises in this block leave as `StoreUnavailable` or `StoreUnusable`."""
    try:
        yield
    except DBAPIError as error:
        raise _translated(place, error) from error
    except NoFreeConnection as error:
        problem = f"{place} gave no free connection within {_WAIT_SECONDS} s; try again in a moment"
        raise StoreUnavailable(problem) from error


def check(engine: Engine, *, revisions: Sequence[str] = schema.REVISIONS) -> None:
    """Raise `StoreUnusable` for a database that is missing, older, newer or damaged.

    `revisions` are those the caller knows, oldest first; it works with the last.
    """
    path = _sqlite_file(engine.url)
    if path is not None and not path.exists():
        raise StoreUnusable(f"{_place(engine)} does not exist", next_step=_UPGRADE_STEP)
    with reading(engine) as connection:
        _check_pages(connection)
        revision = _revision(connection)
        if revision != revisions[-1]:
            raise _other_revision(_place(engine), revision, revisions)
        missing = set(schema.metadata.tables) - set(inspect(connection).get_table_names())
    if missing:
        problem = f"{_place(engine)} is damaged: it lacks the tables {', '.join(sorted(missing))}"
        raise StoreUnusable(problem, next_step=_RESTORE_STEP)


def upgrade(url: str) -> None:
    """Bring the database to this release's schema, creating it if need be.

    One transaction under a lock: processes that start together upgrade once, and a crash half-way
    leaves the old schema. A database already at the newest revision is left alone.
    """
    engine = open_engine(url)
    try:
        _create_file(_sqlite_file(engine.url))
        with _one_upgrade, writing(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK_KEY})")
            revision = _revision(connection)
            if revision is not None and revision not in schema.REVISIONS:
                raise _other_revision(_place(engine), revision, schema.REVISIONS)
            _run_migrations(connection)
    finally:
        engine.dispose()


def _run_migrations(connection: Connection) -> None:
    # Imported here: nobody else needs Alembic, and serving should start without it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # The text may hold a password, so it is not repeated.
        raise StoreUnusable("the state store's URL is not a database URL", next_step=_URL_STEP) from error
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise _unsupported(parsed, None)
    return parsed


def _unsupported(url: URL, error: Exception | None) -> StoreUnusable:
    shown = url.render_as_string(hide_password=True)
    if isinstance(error, ModuleNotFoundError):
        problem = f"the state store {shown} needs the Python package {error.name}, which is not installed"
        return StoreUnusable(problem, next_step="install it with `pip install 'signalbox[postgresql]'`")
    return StoreUnusable(f"the state store {shown} is of an unsupported kind", next_step=_URL_STEP)


def _open_postgresql(url: URL) -> Engine:
    defaults = {"connect_timeout": _WAIT_SECONDS, "options": f"-c lock_timeout={_WAIT_SECONDS}s"}
    arguments = {name: value for name, value in defaults.items() if name not in url.query}
    return create_engine(url, pool_pre_ping=True, pool_timeout=_WAIT_SECONDS, connect_args=arguments)


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _WAIT_SECONDS}, pool_timeout=_WAIT_SECONDS)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    # Off: the driver's own idea of when a transaction begins; `_begin_sqlite` says it.
    connection.isolation_level = None
    # A byte that is no UTF-8 must reach `audit.verify` as a wrong character, not as an error.
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    connection.execute(f"PRAGMA busy_timeout = {_WAIT_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_pages(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        problem = f"{_place(connection.engine)} is damaged: {found}"
        raise StoreUnusable(problem, next_step=_RESTORE_STEP)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    versions = table(schema.VERSION_TABLE, column("version_num"))
    revision: str | None = connection.execute(select(versions.c.version_num)).scalar()
    return revision


def _other_revision(place: str, revision: str | None, known: Sequence[str]) -> StoreUnusable:
    if revision is None:
        return StoreUnusable(f"{place} holds no Signalbox tables yet", next_step=_UPGRADE_STEP)
    if revision in known:
        problem = f"{place} is older than this release (revision {revision}, need {known[-1]})"
        return StoreUnusable(problem, next_step=_UPGRADE_STEP)
    problem = f"{place} is newer than this release (revision {revision}, known {known[-1]})"
    return StoreUnusable(problem, next_step="upgrade signalbox, or put back a backup made with this release")


def _translated(place: str, error: DBAPIError) -> StoreUnavailable:
    cause = error.orig
    # Drivers add lines of position and context; the first one says what happened.
    said = str(cause).strip().partition("\n")[0]
    # The low byte is the primary code; the rest only refines it.
    if (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGED:
        return StoreUnusable(f"{place} is damaged: {said}", next_step=_RESTORE_STEP)
    if getattr(cause, "sqlstate", None) == "42P01" or "no such table" in str(cause):
        return StoreUnusable(f"{place} lacks a table: {said}", next_step=_UPGRADE_STEP)
    return StoreUnavailable(f"{place} did not answer: {said}")


def _place(engine: Engine) -> str:
    path = _sqlite_file(engine.url)
    return f"the state store {path or engine.url.render_as_string(hide_password=True)}"


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _create_file(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made here, because SQLite would make it readable for everybody.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"the state store {path} cannot be written: {error.strerror}") from error
