"""What each cleanup did, canaries, and purging earlier than the promise asks: by account, or once downloaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("purge_after_hours", sa.Float(), nullable=True))
    op.add_column("accounts", sa.Column("purge_on_download", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("batches", sa.Column("purge_on_download", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "cleanups",
        sa.Column("cleanup_id", sa.String(length=33), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("finished_at", UtcTime(), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("receipts", sa.Integer(), nullable=False),
        sa.Column("strays", sa.Integer(), nullable=False),
        sa.Column("faults", sa.Integer(), nullable=False),
        sa.Column("oldest_at", UtcTime(), nullable=True),
        sa.Column("skew_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("cleanup_id", name="pk_cleanups"),
    )
    op.create_index("ix_cleanups_finished_at", "cleanups", ["finished_at"], unique=False)
    op.create_table(
        "canaries",
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("purge_at", UtcTime(), nullable=False),
        sa.Column("checked_at", UtcTime(), nullable=True),
        sa.Column("found_in", sa.JSON(), nullable=False, server_default="[]"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_canaries"),
    )
    op.create_index("ix_canaries_purge_at", "canaries", ["purge_at"], unique=False)
