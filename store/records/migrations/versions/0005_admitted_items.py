"""An admission says which items of its batch it covers, so that a batch run again offers the others only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("admissions", sa.Column("items", sa.JSON(), nullable=False, server_default="[]"))
