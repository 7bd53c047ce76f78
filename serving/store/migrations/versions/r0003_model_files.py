"""What the scan of the model folders last found, and what became of it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "model_files",
        sa.Column("path", sa.String(1024), nullable=False),
        sa.Column("members", sa.Text, nullable=False),
        sa.Column("attached", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source_digest", sa.String(64)),
        sa.Column("side_digest", sa.String(64)),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.String(64)),
        sa.Column("reason", sa.Text),
        sa.Column("side", sa.Text),
        sa.Column("attempt", sa.String(64)),
        sa.Column("missing_since", sa.String(32)),
        sa.Column("updated_at", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_model_files"),
    )
