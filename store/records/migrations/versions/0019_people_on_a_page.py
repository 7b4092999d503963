"""Of people it is known who added them, and when they signed in last: their account's owners see it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("people", sa.Column("added_by", sa.String(33), nullable=True))
    op.add_column("people", sa.Column("signed_in_at", UtcTime(), nullable=True))
