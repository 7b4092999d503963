"""A sign-in link remembers for whom an identity provider vouched, until it is used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sign_in_links", sa.Column("oidc_issuer", sa.String(500), nullable=True))
    op.add_column("sign_in_links", sa.Column("oidc_subject", sa.String(255), nullable=True))
