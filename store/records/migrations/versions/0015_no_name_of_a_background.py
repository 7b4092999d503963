"""Which photo lies behind a batch's subjects is not told by its name any more.

Nor by a schedule that was added with one: its nights fail, whatever that photo is called.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    for name, key in (("batches", "batch_id"), ("schedules", "schedule_id")):
        table = sa.table(name, sa.column(key, sa.String), sa.column("options", sa.JSON))
        named = sa.cast(table.c.options, sa.Text).like('%"bg_image": "%')
        for row_id, options in connection.execute(sa.select(table).where(named)).all():
            nameless = options | {"bg_image": "(a photo of the batch)"}
            connection.execute(sa.update(table).where(table.c[key] == row_id).values(options=nameless))
