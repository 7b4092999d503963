"""Of a cleanup the records say when it ended, and how: nobody asked them what it had deleted, which receipts tell."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("started_at", "objects", "bytes", "receipts", "strays", "oldest_at"):
        op.drop_column("cleanups", name)
