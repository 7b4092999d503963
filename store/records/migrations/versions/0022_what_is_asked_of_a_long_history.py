"""What is asked every few seconds or minutes of nights, uploads and grants does not read all that there ever were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    going, has_key = sa.text("ended_at IS NULL"), sa.text("upload_key IS NOT NULL")
    of_nights, of_uploads = ["schedule_id", "due_at"], ["upload_key"]
    op.create_index("ix_nights_going", "nights", of_nights, postgresql_where=going, sqlite_where=going)
    name = "ix_submissions_upload_key"
    op.create_index(name, "submissions", of_uploads, postgresql_where=has_key, sqlite_where=has_key)
    of_a_pair = ["account_id", "industry", "sequence"]
    op.create_index("ix_consent_events_account_id_industry_sequence", "consent_events", of_a_pair)
