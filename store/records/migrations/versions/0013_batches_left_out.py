"""A batch counts the files of its source that it leaves out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("left_out", sa.JSON(), server_default="{}", nullable=False))
