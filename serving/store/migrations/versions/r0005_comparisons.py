"""How the answers of champion and other versions differed, by minute."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("model", sa.String(512), nullable=False),
        sa.Column("champion", sa.String(64), nullable=False),
        sa.Column("other", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        # 1 where the other version answered the caller and the champion got the copy.
        sa.Column("is_control", sa.Integer, nullable=False),
        sa.Column("minute", sa.String(32), nullable=False),
        # Each worker has rows of its own, so that writing one again changes nothing.
        sa.Column("worker", sa.String(256), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "minute", "champion", "other", "role", "is_control", "worker", name="pk_comparisons"
        ),
    )
    op.create_index("ix_comparisons_minute", "comparisons", ["minute"])
