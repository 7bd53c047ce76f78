"""What was measured of every version and worker, what failed, and the labels that came back for answers."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "telemetry",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(16), nullable=False),
        sa.Column("step_seconds", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.String(256), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("answered_rows", sa.BigInteger, nullable=False),
        sa.Column("faults", sa.BigInteger, nullable=False),
        sa.Column("has_labels", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "version", "variant", "step_seconds", "start", "worker", name="pk_telemetry"
        ),
    )
    op.create_index("ix_telemetry_age", "telemetry", ["step_seconds", "start"])
    op.create_table(
        "resources",
        sa.Column("step_seconds", sa.Integer, nullable=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("worker", sa.String(256), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("step_seconds", "start", "worker", name="pk_resources"),
    )
    op.create_table(
        "failures",
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
        sa.Column("times", sa.BigInteger, nullable=False),
        sa.Column("first_seen_at", sa.String(32), nullable=False),
        sa.Column("last_seen_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_failures"),
    )
    op.create_index("ix_failures_model", "failures", ["model", "last_seen_at"])
    op.create_table(
        "labels",
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(16), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("said", sa.Text),
        sa.Column("scored", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("answered_at", sa.String(32), nullable=False),
        sa.Column("replaced", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "row", "model", "version", "variant", name="pk_labels"),
    )
    op.create_index("ix_labels_age", "labels", ["at"])
    op.create_index("ix_labels_model", "labels", ["model", "version", "at"])
