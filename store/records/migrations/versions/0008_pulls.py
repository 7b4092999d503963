"""Pulls of training candidates: who has a copy of what, and which copies were cleared after a withdrawal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pulls",
        sa.Column("pull_id", sa.String(length=33), nullable=False),
        sa.Column("industry", sa.String(length=32), nullable=False),
        sa.Column("recipient", sa.String(length=200), nullable=False),
        sa.Column("place", sa.String(length=1000), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("query", sa.JSON(), nullable=False),
        sa.Column("lake_state", sa.String(length=64), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("pull_id", name="pk_pulls"),
    )
    op.create_table(
        "pulled_grants",
        sa.Column("pull_id", sa.String(length=33), nullable=False),
        sa.Column("grant_id", sa.String(length=33), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("erased_at", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["pull_id"], ["pulls.pull_id"], name="fk_pulled_grants_pull_id"),
        sa.PrimaryKeyConstraint("pull_id", "grant_id", name="pk_pulled_grants"),
    )
    op.create_index("ix_pulled_grants_grant_id", "pulled_grants", ["grant_id"], unique=False)
