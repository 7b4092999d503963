"""Writes candidates: one whole object per call, under the path that names the grant.

The file is no candidate yet: that it becomes when its admission is recorded (`lake.admission`). Runs in a Ray worker,
without the records. The same facts and the same `admitted_at` give the same bytes under the same name, so writing twice
is writing once; other bytes get another name, so no file is ever replaced by another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from lake.layout import Place, file_key
from lake.parquet import to_parquet
from lake.pictures import hides_colours, perceptual_hash
from lake.strip import strip_metadata
from schemas.candidate import CANDIDATE, LICENCE, SCHEMA_VERSION
from schemas.errors import ItemError, StoreFault
from schemas.ids import BatchId, GrantId
from schemas.industries import Industry
from schemas.results import Scores
from store.objects.object_store import ObjectStore
from store.parallel import in_parallel
from store.transient.transient_store import TransientStore, mask_key


@dataclass(frozen=True)
class CandidateFacts:
    """What is known of one admitted item; its source and mask are read from the transient store."""

    batch_id: BatchId
    item: int
    received_at: datetime
    industry: Industry
    grant_id: GrantId
    network: str
    weights_sha256: str
    device: str
    scores: Scores
    source_sha256: str | None = None


@dataclass(frozen=True)
class LakeFile:
    """A file that was written for `items`. `rows` may be fewer: images that could not be made anonymous are left out.

    With 0 rows there is no object.
    """

    key: str
    rows: int
    bytes: int
    sha256: str
    industry: Industry
    grant_id: GrantId
    batch_id: BatchId
    items: tuple[int, ...]


def write_candidates(
    lake: ObjectStore, transient: TransientStore, facts: Sequence[CandidateFacts], admitted_at: datetime
) -> LakeFile:
    """Write candidates of one batch. Raises `NotFound` for a source or mask that is gone.

    An image whose format is not known well enough to take its metadata off is left out, and so is one with colours
    that nobody sees.
    """
    batch_id, place = _the_one(facts)
    ordered = sorted(facts, key=lambda each: each.item)
    read = in_parallel(transient.objects.storage.AT_ONCE, lambda each: _row(transient, each, admitted_at), ordered)
    rows = [row for row in read if row is not None]
    data = to_parquet(pa.Table.from_pylist(rows, schema=CANDIDATE)) if rows else b""
    digest = hashlib.sha256(data).hexdigest()
    key = file_key(place, batch_id, digest)
    if rows:
        lake.write(key, data)
    return LakeFile(
        key=key,
        rows=len(rows),
        bytes=len(data),
        sha256=digest,
        industry=place.industry,
        grant_id=place.grant_id,
        batch_id=batch_id,
        items=tuple(each.item for each in ordered),
    )


def candidate_id(batch_id: BatchId, item: int) -> str:
    """The name of a candidate: the same however often it is written."""
    return f"{batch_id}-{item:06d}"


def _row(transient: TransientStore, facts: CandidateFacts, admitted_at: datetime) -> dict[str, object] | None:
    try:
        source = transient.source_of(facts.batch_id, facts.item, facts.source_sha256)
    except ItemError:  # it was moved or replaced since it was cut, by its owner or by a slow upload
        return None
    image = strip_metadata(source)
    if image is None or hides_colours(image):
        return None
    mask = transient.read(mask_key(facts.batch_id, facts.item))
    width, height = _png_size(mask)
    return {
        "candidate_id": candidate_id(facts.batch_id, facts.item),
        "batch_id": facts.batch_id,
        "item": facts.item,
        "received_at": facts.received_at,
        "admitted_at": admitted_at,
        "width": width,
        "height": height,
        "network": facts.network,
        "weights_sha256": facts.weights_sha256,
        "device": facts.device,
        **facts.scores.model_dump(),
        "image_sha256": hashlib.sha256(image).hexdigest(),
        "phash": perceptual_hash(image),
        "licence": LICENCE,
        "schema_version": SCHEMA_VERSION,
        "mask_png": mask,
        "image": image,
    }


def _png_size(mask: bytes) -> tuple[int, int]:
    """The mask has the upright image's size, so no pixel need be decoded to know it."""
    if mask[12:16] != b"IHDR":
        raise StoreFault("A mask in the transient store is no PNG. Run the batch again.")
    return int.from_bytes(mask[16:20], "big"), int.from_bytes(mask[20:24], "big")


def _the_one(facts: Iterable[CandidateFacts]) -> tuple[BatchId, Place]:
    """The batch and place of all of `facts`: no file mixes two."""
    found = {(each.batch_id, Place(each.industry, each.grant_id)) for each in facts}
    if len(found) != 1:
        raise ValueError("the candidates of one file must be of one batch, one grant and one industry")
    return found.pop()
