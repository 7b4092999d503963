"""A night counts the files of its source that it leaves out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nights", sa.Column("left_out", sa.Integer(), server_default="0", nullable=False))
