"""Of several lists of photos that requests set out to seal a batch with, the records say which counts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("submissions", sa.Column("sealed_with", sa.String(16), nullable=True))
