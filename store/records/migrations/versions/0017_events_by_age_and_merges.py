"""What is asked every five seconds of the events of 30 days, and at each merge of all admissions, is looked up."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_webhook_events_created_at", "webhook_events", ["created_at"])
    op.create_index("ix_admissions_merged_into", "admissions", ["merged_into"])
