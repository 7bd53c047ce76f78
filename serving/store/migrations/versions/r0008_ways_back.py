"""The ways back and what guards them: restore points, rollbacks, freezes, policies of a model."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    _create_restore_points()
    _create_rollbacks()
    _create_freezes()
    _create_policies()


def _create_restore_points() -> None:
    op.create_table(
        "restore_points",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("champion", sa.String(64)),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("verdict_reason", sa.Text, nullable=False),
        sa.Column("checked_at", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name="pk_restore_points"),
    )
    op.create_index("ix_restore_points_model", "restore_points", ["model", "created_at"])


def _create_rollbacks() -> None:
    op.create_table(
        "rollbacks",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        # Equal to the model while the rollback is open and null after: one open rollback per model.
        sa.Column("open_model", sa.String(512)),
        sa.Column("strategy", sa.String(16), nullable=False),
        sa.Column("from_version", sa.String(64), nullable=False),
        sa.Column("to_version", sa.String(64), nullable=False),
        sa.Column("restore_point", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.Column("finished_at", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name="pk_rollbacks"),
        sa.UniqueConstraint("open_model", name="uq_rollbacks_open_model"),
    )
    op.create_index("ix_rollbacks_model", "rollbacks", ["model", "created_at"])


def _create_freezes() -> None:
    op.create_table(
        "freezes",
        sa.Column("id", sa.String(64), nullable=False),
        # Empty for every model.
        sa.Column("model", sa.String(512), nullable=False),
        # Equal to the model while the freeze was not lifted and null after: one freeze per model.
        sa.Column("active_model", sa.String(512)),
        sa.Column("until", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("lifted_at", sa.String(32)),
        sa.Column("lifted_by", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_freezes"),
        sa.UniqueConstraint("active_model", name="uq_freezes_active_model"),
    )


def _create_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.Column("updated_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", "name", name="pk_policies"),
    )
