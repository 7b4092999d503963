"""Some items of one batch: each read from the transient store, cut, written back beside its source.

An item fails alone: whatever goes wrong with one costs its own result. What is wrong with the store or the deadline
is not an item's fault and ends the call. Keys are functions of the item number, so doing an item again
writes the same objects again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from schemas.batch import Item, Manifest
from schemas.clock import Clock
from schemas.errors import BgbatchError, ItemError, OutOfMemory, SourceMissing
from schemas.results import Done, Failed, ShardReport
from store.transient import TransientStore, cutout_key, mask_key
from workers.cutter import Cut, Cutter
from workers.decode import too_many_bytes

_log = logging.getLogger(__name__)

_UNFORESEEN = "The item could not be processed for a reason of ours, and the operator has been told. Run it again."


def process_shard(
    transient: TransientStore, cutter: Cutter, manifest: Manifest, numbers: Sequence[int], clock: Clock
) -> ShardReport:
    """Cut the items of these numbers and write their report, which is returned. Raises `PastDeadline`, `StoreFault`."""
    results = tuple(_process(transient, cutter, manifest, manifest.items[number - 1], clock) for number in numbers)
    report = ShardReport(first=numbers[0], last=numbers[-1], results=results)
    transient.write_report(manifest.stamp, report)
    return report


def _process(transient: TransientStore, cutter: Cutter, manifest: Manifest, item: Item, clock: Clock) -> Done | Failed:
    try:
        return _done(transient, cutter, manifest, item, clock)
    except ItemError as error:
        return Failed(number=item.number, code=error.code, sentence=str(error), finished_at=clock())
    except BgbatchError:
        raise
    except MemoryError:
        sentence = "There was not enough memory for this image even alone. Send a smaller one."
        return Failed(number=item.number, code=OutOfMemory.code, sentence=sentence, finished_at=clock())
    except Exception as error:  # noqa: BLE001 - an item fails alone
        # The kind of error and the place in our code, no message: a message may quote the customer's data.
        _log.error(
            "batch %s item %d: %s at %s", manifest.stamp.batch_id, item.number, type(error).__name__, _place(error)
        )
        return Failed(number=item.number, code=ItemError.code, sentence=_UNFORESEEN, finished_at=clock())


def _done(transient: TransientStore, cutter: Cutter, manifest: Manifest, item: Item, clock: Clock) -> Done:
    stamp, options = manifest.stamp, item.options or manifest.stamp.options
    source = _source(transient, cutter, manifest, item)
    behind = _background(transient, cutter, manifest, options.bg_image) if options.bg_image is not None else None
    cut = cutter.cut(source, options, want_mask=stamp.grant_id is not None, background=behind)
    transient.write(stamp, cutout_key(stamp.batch_id, item.number, options.format.suffix), cut.file)
    if cut.mask_png is not None:
        transient.write(stamp, mask_key(stamp.batch_id, item.number), cut.mask_png)
    return _result(cutter, item, cut, clock)


def _source(transient: TransientStore, cutter: Cutter, manifest: Manifest, item: Item) -> bytes:
    if item.size > cutter.limits.bytes:  # such a source was not even uploaded
        raise too_many_bytes(cutter.limits)
    return transient.source(manifest.stamp, item)


def _background(transient: TransientStore, cutter: Cutter, manifest: Manifest, path: str) -> bytes:
    """The bytes of the batch's own photo at `path`."""
    item = next((each for each in manifest.items if each.path == path), None)
    if item is None:
        raise SourceMissing("The photo that bg_image names is not in the batch. Add it to the batch, or name another.")
    return _source(transient, cutter, manifest, item)


def _result(cutter: Cutter, item: Item, cut: Cut, clock: Clock) -> Done:
    return Done(
        number=item.number,
        width=cut.width,
        height=cut.height,
        bytes=len(cut.file),
        source_width=cut.source_width,
        source_height=cut.source_height,
        scores=cut.scores,
        flags=cut.flags,
        network=cutter.network,
        weights_sha256=cutter.weights_sha256,
        device=cutter.device,
        finished_at=clock(),
    )


def _place(error: BaseException) -> str:
    """File and line of our own code that the error came through last."""
    place = error.__traceback__
    named = "nowhere"
    while place is not None:
        code = place.tb_frame.f_code
        if f"{__package__}/" in code.co_filename:
            named = f"{code.co_filename.rpartition('/')[2]}:{place.tb_lineno}"
        place = place.tb_next
    return named
