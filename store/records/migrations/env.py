"""Alembic's entry: migrations run on the connection of `store.records.database`, inside its transaction."""

from __future__ import annotations

from alembic import context

from store.records.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds all of it
    render_as_batch=True,
)
context.run_migrations()
