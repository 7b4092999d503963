"""The record that something was deleted: what, how many objects and bytes, when, how long before the deadline."""

from __future__ import annotations

from enum import StrEnum

from schemas.chain import GENESIS, chained_hash
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


def content_hash(receipt: Receipt) -> str:
    """SHA-256 over what the receipt says, without its place in the chain."""
    content = receipt.model_dump(exclude={"places", "previous_hash", "hash"})
    return chained_hash(GENESIS, content | {"places": "\n".join(receipt.places)})


def receipt_hash(receipt: Receipt) -> str:
    """What `receipt.hash` must be: the chain links the hashes of contents.

    So a customer can follow the chain from their receipt to its newest end without seeing what the others say.
    """
    return link(receipt.previous_hash, content_hash(receipt))


def link(previous_hash: str, content: str) -> str:
    """The hash of the receipt whose content has the hash `content`, after the one with `previous_hash`."""
    return chained_hash(previous_hash, {"content_sha256": content})
