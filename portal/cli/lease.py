"""While a command works on a batch it holds the batch's lease, so that a dispatcher beside it keeps off.

When the dispatcher was first, the command watches it: who asked wants the batch done, by whomever. An idle one is let
go first, because its workers are warm: the command would start Ray and a network of its own beside them.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from flows.lease import LeaseLost, batch_renewed, under_lease
from flows.parts import Parts
from schemas.ids import BatchId
from store import line
from store.batches import get_batch

_log = logging.getLogger(__name__)

_OURS = "command"
_LOOK_EVERY = 1.0  # seconds
_FOR_THE_IDLE = timedelta(seconds=2)  # a dispatcher without work looks every second
_A_MOMENT = 0.1  # seconds


@contextmanager
def holding(parts: Parts, batch_id: BatchId) -> Iterator[Parts | None]:
    """Hold the lease until the end of the block. The parts to work with: the batch stops when the lease is lost.

    While somebody else works on the batch, that is watched; None once they have brought it to its end.

    Raises `BatchNotSealed`.
    """
    holder = f"{socket.gethostname()} {os.getpid()} {_OURS}"
    with parts.records.reading() as connection:
        stands = line.find_submission(connection, batch_id)
    if stands is not None and stands.ready_at is None:
        parts.transient.manifest(batch_id)  # there is none: whoever uploads the batch goes on with that
    is_ours = not _is_taken(parts, batch_id) and _claim(parts, batch_id, holder, once_more=True)
    while not is_ours:
        with parts.records.transaction() as connection:
            record = get_batch(connection, batch_id)
        parts.watch(record.counts)
        if record.state.has_ended:
            yield None
            return
        time.sleep(_LOOK_EVERY)
        is_ours = _claim(parts, batch_id, holder, once_more=False)
    try:
        with batch_renewed(parts, batch_id, holder) as lost:
            yield under_lease(parts, holder, lost)
    except LeaseLost:
        _log.warning("batch %s: another process has it by now", batch_id)  # what it came to so far is shown
    finally:
        with parts.records.transaction() as connection:
            if get_batch(connection, batch_id).state.has_ended:  # it may have been so before: then nobody has said it
                line.leave(connection, batch_id, parts.clock())
            line.release(connection, batch_id, holder, parts.clock())


def _is_taken(parts: Parts, batch_id: BatchId) -> bool:
    """Whether an idle dispatcher takes a batch that has just been sealed."""
    waited = 0.0
    while waited < _FOR_THE_IDLE.total_seconds():
        with parts.records.reading() as connection:
            stands = line.find_submission(connection, batch_id)
        if stands is None or stands.ready_at is None or parts.clock() - stands.ready_at >= _FOR_THE_IDLE:
            return False
        if stands.started_at is not None:
            return True
        time.sleep(_A_MOMENT)
        waited += _A_MOMENT
    return False


def _claim(parts: Parts, batch_id: BatchId, holder: str, once_more: bool) -> bool:
    with parts.records.transaction() as connection:
        stands = line.find_submission(connection, batch_id)
        if stands is None:
            return True
        if stands.lease_holder is not None and _is_gone(stands.lease_holder):
            line.release(connection, batch_id, stands.lease_holder, parts.clock())
        return line.claim(connection, batch_id, holder, parts.clock(), once_more=once_more)


def _is_gone(holder: str) -> bool:
    """Whether the holder was a command on this machine whose process is dead: nobody need wait for its lease to end."""
    host, _, rest = holder.partition(" ")
    pid, _, kind = rest.partition(" ")
    if host != socket.gethostname() or kind != _OURS or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
