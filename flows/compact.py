"""The compact flow: merge the lake's small files, off-peak, once a night.

`bgbatch upkeep` runs it by the clock, between two cleanups.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import cast
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from consent.gate import is_live
from flows.candidates import lake_of
from flows.parts import current_parts
from flows.unforeseen import without_its_text
from lake.compact import Compacted
from lake.compact import compact as compact_lake
from schemas.counting import so_many


@flow(name="compact", persist_result=False)
def compact(until: datetime | None = None) -> Compacted:
    """Merge what is worth merging, and begin nothing after `until`. Raises `StoreFault` at the end."""
    done = merge_small_files(until)
    page = f"# Compact: {so_many(done.files, 'file')} became {done.merged:,}, {so_many(done.rows, 'candidate')}, "
    page += f"{done.bytes / 1e6:.1f} MB"
    page += f"; merges left: {done.left}" if done.left else ""
    create_markdown_artifact(page, key="compact", description="What the last compaction merged")
    return done


@task(name="merge", retries=2, retry_delay_seconds=30, persist_result=False)
@without_its_text
def merge_small_files(until: datetime | None) -> Compacted:
    """Plan and merge on the parts in use."""
    parts = current_parts()
    artifact = cast(UUID, create_progress_artifact(0.0, key="compact-progress", description="Merges"))

    def show(done: int, of: int) -> None:
        update_progress_artifact(artifact, progress=100.0 * done / of)

    return compact_lake(lake_of(parts), is_live, parts.clock, os.urandom, on_merge=show, until=until)
