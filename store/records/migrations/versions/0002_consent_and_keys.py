"""Each account's consent history becomes a chain of its own; API keys; identity providers; closing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from store.records.tables import UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ADD COLUMN and indexes: rebuilding a table (Alembic's batch mode) would lose its append-only triggers.
    op.add_column(
        "consent_events",
        sa.Column("account_previous_hash", sa.String(length=64), nullable=False, server_default="0" * 64),
    )
    op.create_index(
        "uq_consent_events_account_id_account_previous_hash",
        "consent_events",
        ["account_id", "account_previous_hash"],
        unique=True,
    )
    op.add_column("accounts", sa.Column("closed_at", UtcTime(), nullable=True))
    op.add_column("people", sa.Column("oidc_issuer", sa.String(length=500), nullable=True))
    op.add_column("people", sa.Column("oidc_subject", sa.String(length=255), nullable=True))
    op.create_index("uq_people_oidc_issuer_oidc_subject", "people", ["oidc_issuer", "oidc_subject"], unique=True)
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(length=33), nullable=False),
        sa.Column("account_id", sa.String(length=33), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=33), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("revoked_at", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name="fk_api_keys_account_id"),
        sa.ForeignKeyConstraint(["created_by"], ["people.person_id"], name="fk_api_keys_created_by"),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
        sa.UniqueConstraint("key_sha256", name="uq_api_keys_key_sha256"),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"], unique=False)
