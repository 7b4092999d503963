"""Pauses of schedules, and the lease of whoever works on a night."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schedules", sa.Column("paused_at", UtcTime))
    op.add_column("schedules", sa.Column("resumed_at", UtcTime))
    op.add_column("nights", sa.Column("lease_holder", sa.String(64)))
    op.add_column("nights", sa.Column("lease_until", UtcTime))
