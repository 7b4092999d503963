"""What is asked at every receipt and every cleanup must not grow with years of purged batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    unpurged = sa.text("purged_at IS NULL")
    op.create_index("ix_batches_unpurged", "batches", ["purge_at"], postgresql_where=unpurged, sqlite_where=unpurged)
    op.create_index("ix_batches_received_at", "batches", ["received_at"])
