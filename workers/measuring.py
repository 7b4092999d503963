"""Photos that are to be consistent are measured first; then a folder's are set alike, and cut.

A photo is measured by a call of its own, as it is cut by one: one that cannot be measured, or kills its worker over it,
costs its own result, and its folder does without it. The network is asked once: its mask is kept beside the measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from schemas.batch import Item, Manifest
from schemas.errors import NotFound
from schemas.ids import BatchId
from store.parallel import in_parallel
from store.transient.transient_store import TransientStore, alike_key, coarse_mask_key, measure_key, measures_prefix
from workers.alike import Alike, Measure, Setting, alike, setting_for
from workers.plan import Shard

Pixels = npt.NDArray[np.uint8]


def is_to_be_set_alike(transient: TransientStore, manifest: Manifest) -> bool:
    """Whether photos of the batch are to be consistent, and how is not settled. Raises `StoreFault`."""
    return manifest.wants_consistency and not transient.objects.exists(alike_key(manifest.stamp.batch_id))


def unmeasured(transient: TransientStore, manifest: Manifest, shards: Sequence[Shard]) -> list[Shard]:
    """What of these shards is to be consistent and has no measure. Raises `StoreFault`."""
    names = transient.objects.files(measures_prefix(manifest.stamp.batch_id))
    known = {int(name.removesuffix(".json")) for name in names if name.endswith(".json")}
    some = (tuple(n for n in shard if n not in known and _options_say_so(manifest, n)) for shard in shards)
    return [shard for shard in some if shard]


def set_alike(transient: TransientStore, manifest: Manifest) -> None:
    """Settle what the photos of each folder have in common, by all measures that there are.

    Raises `PastDeadline`, `StoreFault`.
    """
    stamp = manifest.stamp
    folders: dict[str, list[int]] = defaultdict(list)
    for item in manifest.items:
        if manifest.options_of(item).consistent:
            folders[_folder(item)].append(item.number)
    found = alike(_settings(transient, stamp.batch_id, list(folders.values())))
    transient.write(stamp, alike_key(stamp.batch_id), found.model_dump_json().encode())


def read_alike(transient: TransientStore, batch_id: BatchId) -> Alike | None:
    """What was settled; None while photos are still to be measured. Raises `StoreFault`."""
    try:
        return Alike.model_validate_json(transient.read(alike_key(batch_id)))
    except NotFound:
        return None


def read_mask(transient: TransientStore, batch_id: BatchId, number: int) -> Pixels | None:
    """The mask of an item that was measured. Raises `StoreFault`."""
    try:
        file = transient.read(coarse_mask_key(batch_id, number))
    except NotFound:
        return None
    return np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def _settings(
    transient: TransientStore, batch_id: BatchId, folders: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[int], Setting | None]]:
    read = partial(_read_measure, transient, batch_id)
    for numbers in folders:
        found = in_parallel(transient.objects.storage.AT_ONCE, read, numbers)
        yield numbers, setting_for([each for each in found if each is not None])


def _read_measure(transient: TransientStore, batch_id: BatchId, number: int) -> Measure | None:
    try:
        return Measure.model_validate_json(transient.read(measure_key(batch_id, number)))
    except NotFound:
        return None


def _options_say_so(manifest: Manifest, number: int) -> bool:
    return manifest.options_of(manifest.items[number - 1]).consistent


def _folder(item: Item) -> str:
    return item.path.rpartition("/")[0]
