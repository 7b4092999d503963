"""A night's state has room for `partially_completed`, which PostgreSQL refused in a column of 16 letters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("nights") as table:
        table.alter_column("state", existing_type=sa.String(16), type_=sa.String(24), existing_nullable=False)
