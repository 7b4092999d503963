"""The lake's files may be merged: an admission says where its rows lie now, and when they were erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("admissions", sa.Column("merged_into", sa.String(length=200), nullable=True))
    op.add_column("admissions", sa.Column("retired_at", UtcTime(), nullable=True))
    op.add_column("admissions", sa.Column("erased_at", UtcTime(), nullable=True))
    op.create_table(
        "merged_files",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("grant_id", sa.String(length=33), nullable=False),
        sa.Column("industry", sa.String(length=32), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("merged_at", UtcTime(), nullable=False),
        sa.Column("retired_at", UtcTime(), nullable=True),
        sa.Column("erased_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_merged_files"),
    )
    op.create_index("ix_merged_files_grant_id", "merged_files", ["grant_id"], unique=False)
    op.create_index("ix_merged_files_industry", "merged_files", ["industry"], unique=False)
