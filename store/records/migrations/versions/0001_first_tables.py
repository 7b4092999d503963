"""The first tables, and the rules that make ledger and receipts append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
    )
    op.create_table(
        "admissions",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("grant_id", sa.String(length=33), nullable=False),
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("industry", sa.String(length=32), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("admitted_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_admissions"),
    )
    op.create_index("ix_admissions_batch_id", "admissions", ["batch_id"], unique=False)
    op.create_index("ix_admissions_grant_id", "admissions", ["grant_id"], unique=False)
    op.create_index("ix_admissions_industry", "admissions", ["industry"], unique=False)
    op.create_table(
        "consent_events",
        sa.Column(
            "sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("actor", sa.String(length=33), nullable=True),
        sa.Column("act", sa.String(length=16), nullable=False),
        sa.Column("industry", sa.String(length=32), nullable=False),
        sa.Column("grant_id", sa.String(length=33), nullable=True),
        sa.Column("notice_version", sa.String(length=32), nullable=False),
        sa.Column("notice_sha256", sa.String(length=64), nullable=False),
        sa.Column("page", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("received_at", UtcTime(), nullable=False),
        sa.Column("recorded_at", UtcTime(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_consent_events"),
        sa.UniqueConstraint("previous_hash", name="uq_consent_events_previous_hash"),
    )
    op.create_index("ix_consent_events_account_id", "consent_events", ["account_id"], unique=False)
    op.create_index("ix_consent_events_grant_id", "consent_events", ["grant_id"], unique=False)
    op.create_table(
        "receipts",
        sa.Column(
            "sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False
        ),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=36), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_deletion", UtcTime(), nullable=False),
        sa.Column("last_deletion", UtcTime(), nullable=False),
        sa.Column("deadline", UtcTime(), nullable=False),
        sa.Column("remaining", sa.Integer(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_receipts"),
        sa.UniqueConstraint("previous_hash", name="uq_receipts_previous_hash"),
    )
    op.create_index("ix_receipts_subject", "receipts", ["subject"], unique=False)
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(length=36), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("industry", sa.String(length=32), nullable=True),
        sa.Column("grant_id", sa.String(length=33), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("received_at", UtcTime(), nullable=False),
        sa.Column("purge_at", UtcTime(), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.JSON(), nullable=False),
        sa.Column("purged_at", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name="fk_batches_account_id"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_batches"),
    )
    op.create_index("ix_batches_account_received", "batches", ["account_id", "received_at"], unique=False)
    op.create_index("ix_batches_purge_at", "batches", ["purge_at"], unique=False)
    op.create_table(
        "people",
        sa.Column("person_id", sa.String(length=33), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name="fk_people_account_id"),
        sa.PrimaryKeyConstraint("person_id", name="pk_people"),
        sa.UniqueConstraint("account_id", "email", name="uq_people_account_id_email"),
    )
    op.create_index("ix_people_account_id", "people", ["account_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=33), nullable=False),
        sa.Column("csrf_token", sa.String(length=64), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.person_id"], name="fk_sessions_person_id"),
        sa.PrimaryKeyConstraint("token_sha256", name="pk_sessions"),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=33), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.person_id"], name="fk_sign_in_links_person_id"),
        sa.PrimaryKeyConstraint("token_sha256", name="pk_sign_in_links"),
    )
    op.create_table(
        "erasures",
        sa.Column("subject", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_deletion", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_erasures"),
    )

    for table in ("consent_events", "receipts"):
        if op.get_bind().dialect.name == "postgresql":
            _refuse_changes_on_postgresql(table)
        else:
            _refuse_changes_on_sqlite(table)


def _refuse_changes_on_sqlite(table: str) -> None:
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def _refuse_changes_on_postgresql(table: str) -> None:
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
    )
