"""Which photo lies behind a batch's subjects is told by its name, which is kept no longer than other names: it lies in
the transient store, `<hour>/<batch id>/backdrop`, and the records say only that there is one.
"""

from __future__ import annotations

from schemas.batch import Stamp
from schemas.errors import BadOptions, NotFound
from schemas.ids import BatchId
from store.records.batches import A_PHOTO_OF_THE_BATCH
from store.transient.transient_store import TransientStore, batch_prefix


def note_name(transient: TransientStore, stamp: Stamp) -> None:
    """Keep the name, if there is one. Raises `PastDeadline`, `StoreFault`."""
    if stamp.options.bg_image is not None:
        transient.write(stamp, _key(stamp.batch_id), stamp.options.bg_image.encode())


def with_name(transient: TransientStore, stamp: Stamp) -> Stamp:
    """The stamp as it was made, out of one that comes from the records. Raises `StoreFault`, `BadOptions`."""
    if stamp.options.bg_image != A_PHOTO_OF_THE_BATCH:
        return stamp
    try:
        name = transient.read(_key(stamp.batch_id)).decode()
    except NotFound:  # purged, or opened by a version that kept it elsewhere
        raise BadOptions(
            "Which photo lies behind the batch's subjects is not known any more, so it cannot be sealed. Open another "
            "batch, and send the photos again."
        ) from None
    return stamp.model_copy(update={"options": stamp.options.model_copy(update={"bg_image": name})})


def _key(batch_id: BatchId) -> str:
    return f"{batch_prefix(batch_id)}/backdrop"
