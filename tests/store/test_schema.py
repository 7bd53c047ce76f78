"""The schema and its migrations describe the same tables."""

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from serving.store import database, schema
from serving.store.database import reading


def test_migrations_build_the_schema_when_run_from_nothing(engine: Engine) -> None:
    """No table, column, index or constraint differs."""
    options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_revisions_are_the_migrations_when_listed_oldest_first() -> None:
    """`check` knows revisions without loading Alembic; its list must be right."""
    config = Config()
    config.set_main_option("script_location", str(database.__file__).replace("database.py", "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == schema.REVISIONS
