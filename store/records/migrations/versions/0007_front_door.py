"""The front door: a line to stand in, schedules and their nights, webhooks, keys that let a request happen once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "submissions",
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("upload_key", sa.String(length=64), nullable=True),
        sa.Column("ready_at", UtcTime(), nullable=True),
        sa.Column("due_at", UtcTime(), nullable=True),
        sa.Column("again", sa.JSON(), nullable=True),
        sa.Column("again_before", UtcTime(), nullable=True),
        sa.Column("cancel_at", UtcTime(), nullable=True),
        sa.Column("lease_holder", sa.String(length=64), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.Column("lease_items", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("started_at", UtcTime(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("trace", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", name="pk_submissions"),
    )
    op.create_index("ix_submissions_account_id", "submissions", ["account_id"], unique=False)
    op.create_index("ix_submissions_ready_at", "submissions", ["ready_at"], unique=False)
    op.create_table(
        "shares",
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("finish_tag", sa.Float(), nullable=False, server_default="0"),
        sa.Column("weight", sa.Float(), nullable=False, server_default="1"),
        sa.Column("most_batches", sa.Integer(), nullable=True),
        sa.Column("most_items", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", name="pk_shares"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "key_sha256", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "account_places",
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("url", sa.String(length=500), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "url", name="pk_account_places"),
    )
    op.create_table(
        "schedules",
        sa.Column("schedule_id", sa.String(length=33), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("cron", sa.String(length=100), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=500), nullable=False),
        sa.Column("deliver", sa.String(length=500), nullable=True),
        sa.Column("industry", sa.String(length=32), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("overlap", sa.String(length=16), nullable=False),
        sa.Column("deadline_minutes", sa.Integer(), nullable=True),
        sa.Column("fingerprint_key", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_account_id", "schedules", ["account_id"], unique=False)
    op.create_table(
        "nights",
        sa.Column("night_id", sa.String(length=33), nullable=False),
        sa.Column("schedule_id", sa.String(length=33), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("batch_id", sa.String(length=36), nullable=True),
        sa.Column("found", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("new", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("changed", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("skipped", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("deleted", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("done", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("delivered", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failures", sa.JSON(), nullable=False, server_default="{}"),
        sa.Column("deadline_at", UtcTime(), nullable=True),
        sa.Column("estimate_at", UtcTime(), nullable=True),
        sa.Column("alerted_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("night_id", name="pk_nights"),
        sa.UniqueConstraint("schedule_id", "due_at", name="uq_nights_schedule_id_due_at"),
    )
    op.create_table(
        "fingerprints",
        sa.Column("schedule_id", sa.String(length=33), nullable=False),
        sa.Column("path_hmac", sa.String(length=64), nullable=False),
        sa.Column("content_hmac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", "path_hmac", name="pk_fingerprints"),
    )
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.String(length=33), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("url", sa.String(length=500), nullable=False),
        sa.Column("secret", sa.String(length=80), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("webhook_id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_account_id", "webhooks", ["account_id"], unique=False)
    op.create_table(
        "webhook_events",
        sa.Column("event_id", sa.String(length=33), nullable=False),
        sa.Column("webhook_id", sa.String(length=33), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("next_try_at", UtcTime(), nullable=True),
        sa.Column("delivered_at", UtcTime(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", name="pk_webhook_events"),
    )
    op.create_index("ix_webhook_events_next_try_at", "webhook_events", ["next_try_at"], unique=False)
    op.create_index("ix_webhook_events_webhook_id", "webhook_events", ["webhook_id"], unique=False)
