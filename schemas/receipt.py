"""The record that something was deleted: what, how many objects and bytes, when, how long before the deadline."""

from __future__ import annotations

from enum import StrEnum

from schemas.record import Moment, Record


class Erased(StrEnum):
    """What a receipt is about: a batch in the transient store, or a grant's candidates in the lake."""

    BATCH = "batch"
    GRANT = "grant"


class Receipt(Record):
    """Proof of one erasure. `subject` is a batch id or a grant id. `margin_seconds` is what was left to `deadline`.

    `places`: each place that was looked into afterwards, in words for people; `remaining` is what was left in all of
    them. A late writer can make an erasure happen twice; then there are two receipts. `hash`: see `schemas.chain`.
    """

    sequence: int
    kind: Erased
    subject: str
    objects: int
    bytes: int
    first_deletion: Moment
    last_deletion: Moment
    deadline: Moment
    remaining: int
    places: tuple[str, ...] = ()
    previous_hash: str
    hash: str

    @property
    def margin_seconds(self) -> float:
        """How long before the deadline the last object went; negative if it was late."""
        return (self.deadline - self.last_deletion).total_seconds()
