"""Which places for copies of candidates a pull writes into just now, so that no other does."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "copies_under_way",
        sa.Column("place_sha256", sa.String(length=64), nullable=False),
        sa.Column("lease_holder", sa.String(length=128), nullable=False),
        sa.Column("lease_until", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("place_sha256", name="pk_copies_under_way"),
    )
