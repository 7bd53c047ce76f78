"""The first tables: audit, leases, alias changes, overrides, outbox, digests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_GENESIS = "0" * 64


def upgrade() -> None:
    _create_audit()
    _create_leases()
    _create_alias_changes()
    _create_overrides()
    _create_outbox()
    _create_digests()


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("entry_id", sa.String(64), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
        sa.UniqueConstraint("entry_id", name="uq_audit_entry_id"),
    )
    op.create_index("ix_audit_model", "audit", ["model", "seq"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "hash": _GENESIS}])


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("resource", sa.String(512), nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("resource", name="pk_leases"),
    )


def _create_alias_changes() -> None:
    op.create_table(
        "alias_changes",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("alias", sa.String(512), nullable=False),
        sa.Column("from_version", sa.Text),
        sa.Column("to_version", sa.Text),
        sa.Column("epoch", sa.BigInteger),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("outcome", sa.String(16)),
        sa.Column("evidence", sa.Text),
        sa.Column("settled_at", sa.String(32)),
        sa.Column("follows_id", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_alias_changes"),
        sa.UniqueConstraint("model", "alias", "follows_id", name="uq_alias_changes_follows"),
        sqlite_autoincrement=True,
    )


def _create_overrides() -> None:
    op.create_table(
        "overrides",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("not_version", sa.Text, nullable=False),
        sa.Column("answer_with", sa.Text),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("laid_at", sa.String(32), nullable=False),
        sa.Column("ended_at", sa.String(32)),
        sa.Column("ended_why", sa.Text),
        sa.PrimaryKeyConstraint("model", "role", name="pk_overrides"),
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("dedup_key", sa.String(1024), nullable=False),
        sa.Column("undelivered_key", sa.String(1024)),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("next_try_at", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("delivered_at", sa.String(32)),
        sa.Column("receipt", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("undelivered_key", name="uq_outbox_undelivered_key"),
        sqlite_autoincrement=True,
    )


def _create_digests() -> None:
    op.create_table(
        "digests",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("source", sa.String(1024), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("recorded_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "source", name="pk_digests"),
    )
