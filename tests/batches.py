"""A batch from a customer's folder to its end, in this process and without an engine."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from flows import steps
from flows.admission import Write
from flows.parts import Parts
from flows.receive import stamp_batch
from portal.intake.copying import Copying
from portal.intake.folder import find_photos, upload
from schemas.batch import Counts, Stamp
from schemas.ids import AccountId, BatchId, Randomness
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Done, Scores


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def send_folder(
    parts: Parts,
    account_id: AccountId,
    folder: Path,
    industry: Industry | None = None,
    options: CutoutOptions | None = None,
    randomness: Randomness = os.urandom,
) -> Stamp:
    stamp = stamp_batch(parts, account_id, industry, options or CutoutOptions(), randomness)
    upload(Copying(parts, stamp), find_photos(folder).photos, on_item=lambda: None)
    return stamp


def run_batch(
    parts: Parts, batch_id: BatchId, run_shards: steps.RunShards, write: Write = lambda portions, admitted_at: iter(())
) -> Counts:
    """The steps in order, as `flows.process_batch` takes them. By itself nothing goes into the lake."""
    planned = steps.plan(parts, batch_id)
    if planned.shards:
        steps.cut(parts, planned, run_shards)
    steps.admit(parts, batch_id, write)
    return steps.finish(parts, batch_id)


def done(number: int, moment: datetime, size: int = 8) -> Done:
    """The result of a cutout that nobody looks at."""
    return Done(
        number=number,
        width=1,
        height=1,
        bytes=size,
        source_width=1,
        source_height=1,
        scores=Scores(**dict.fromkeys(Scores.model_fields, 1)),
        network="none",
        weights_sha256="0" * 64,
        device="none",
        finished_at=moment,
    )
