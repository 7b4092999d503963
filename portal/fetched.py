"""The customer has every cutout of a finished batch: for an account that wants so, it goes with the next cleanup.

What counts is a whole delivery: a zip whose last byte left this server, or a command that wrote every file. A part, a
zip that broke off and a batch that is not finished count for nothing; they live as long as everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from portal.delivery import Results
from schemas.batch import BatchState
from schemas.clock import Clock
from store.records.batches import get_batch
from store.records.database import Records
from store.records.early_purge import note_download

_FINISHED = (BatchState.COMPLETED, BatchState.PARTIALLY_COMPLETED)
_log = logging.getLogger(__name__)


def note_fetched(records: Records, results: Results, clock: Clock) -> bool:
    """Call it after the last byte of `results`. Whether the batch goes with the next cleanup therefore.

    A batch that has more cutouts by now, or is in line again for what failed, was not fetched whole.
    """
    with records.transaction() as connection:
        record = get_batch(connection, results.stamp.batch_id)
        is_whole = record.state in _FINISHED and record.counts.done == len(results.done)
        return is_whole and note_download(connection, results.stamp.batch_id, clock())


def noting_the_end(stream: Iterator[bytes], records: Records, results: Results, clock: Clock) -> Iterator[bytes]:
    """The same pieces; once the last one was taken, the batch counts as fetched."""
    yield from stream
    try:
        note_fetched(records, results, clock)
    except SQLAlchemyError:  # the zip is whole, and the batch goes when its day is over
        _log.warning("A download could not be recorded; its batch is purged with its day.")
