"""Which photo lies behind a batch's subjects is not told by its name any more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    batches = sa.table("batches", sa.column("batch_id", sa.String), sa.column("options", sa.JSON))
    named = sa.cast(batches.c.options, sa.Text).like('%"bg_image": "%')
    connection = op.get_bind()
    for batch_id, options in connection.execute(sa.select(batches).where(named)).all():
        nameless = options | {"bg_image": "(a photo of the batch)"}
        connection.execute(sa.update(batches).where(batches.c.batch_id == batch_id).values(options=nameless))
