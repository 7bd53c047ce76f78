"""What a staged rollout wants, how far it is, and what a person last asked of it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for name in ("spec", "status", "command"):
        op.add_column("rollouts", sa.Column(name, sa.Text))
