"""What a cleanup works with, out of the parts in use, and its one step that needs no engine: the purge."""

from __future__ import annotations

import os

from sqlalchemy.exc import SQLAlchemyError

from flows.parts import Parts
from schemas.clock import system_clock
from schemas.errors import BgbatchError, StoreFault
from schemas.ids import BatchId, Randomness
from store.purging.cleanup import Machine, clean_up
from store.purging.purge import RECORDS_FAULT, PurgeReport
from store.spans import note_span


def cleaning(parts: Parts, randomness: Randomness = os.urandom) -> Machine:
    """The clock of the parts may be shifted (the demo lets a day pass); skew is measured with the machine's own."""
    return Machine(
        objects=parts.transient.objects,
        records=parts.records,
        purge_after=parts.settings.purge_after,
        clock=parts.clock,
        real=system_clock,
        randomness=randomness,
    )


def purge(parts: Parts) -> PurgeReport:
    """Purge what is due. What goes wrong, and what was wrong with the parts before, is in the report's faults."""
    report = clean_up(cleaning(parts), [code_of(each) for each in parts.troubles])
    for each in report.receipts:
        began, ended = each.first_deletion, each.last_deletion
        note_span(parts.settings, BatchId(each.subject), "purge", began, ended, objects=each.objects)
    return report


def code_of(trouble: Exception) -> str:
    """The code that a trouble has among the faults of a cleanup."""
    if isinstance(trouble, BgbatchError):
        return trouble.code
    return RECORDS_FAULT if isinstance(trouble, SQLAlchemyError) else StoreFault.code
