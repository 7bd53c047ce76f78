"""Alembic's entry: runs revisions on the connection that `upgrade` opened and locked; needs no ini file."""

from alembic import context

from serving.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
