"""Where a copy is being made just now, by its name: places inside it or around it are told by that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("copies_under_way", sa.Column("place", sa.Text()))
