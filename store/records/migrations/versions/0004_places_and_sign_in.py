"""Receipts list the places that were checked; sign-in counts attempts, and remembers what it asked a provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("receipts", sa.Column("places", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "attempts",
        sa.Column("bucket", sa.String(length=64), nullable=False),
        sa.Column("window_ends", UtcTime(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name="pk_attempts"),
    )
    op.create_table(
        "provider_sign_ins",
        sa.Column("browser_sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("code_verifier", sa.String(length=128), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("browser_sha256", name="pk_provider_sign_ins"),
    )
