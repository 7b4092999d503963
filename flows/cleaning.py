"""What a cleanup works with, out of the parts in use."""

from __future__ import annotations

import os

from flows.parts import Parts
from schemas.clock import system_clock
from schemas.ids import Randomness
from store.cleanup import Machine


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
