"""A customer's proof that a batch is gone, with the piece of hash chain that lets them check it themselves. Pure."""

from __future__ import annotations

from schemas.errors import LedgerBroken
from schemas.receipt import Receipt, link, receipt_hash
from schemas.record import Moment, Record


class Certificate(Record):
    """`receipts`: every erasure of the batch, oldest first. `links`: the hashes of the contents of all receipts after
    the first of them, up to `head`, the hash of the newest: they say nothing about other customers.

    Whoever keeps two certificates can see that the later chain goes on from the earlier one.
    """

    batch_id: str
    received_at: Moment
    deadline: Moment
    receipts: tuple[Receipt, ...]
    links: tuple[str, ...]
    head_sequence: int
    head: str
    issued_at: Moment


class MoreLinks(Record):
    """How a chain goes on: from the receipt `after_sequence` with the hash `after`, by `links`, to a later head."""

    after_sequence: int
    after: str
    links: tuple[str, ...]
    head_sequence: int
    head: str


def check_more(before: Certificate | MoreLinks, more: MoreLinks) -> int:
    """How many links lead on from the head of `before`. Raises `LedgerBroken` when they do not."""
    if (more.after_sequence, more.after) != (before.head_sequence, before.head):
        raise LedgerBroken("These links do not go on where the file before them ended.")
    at = more.after
    for content in more.links:
        at = link(at, content)
    if at != more.head or more.after_sequence + len(more.links) != more.head_sequence:
        raise LedgerBroken("The links do not lead to their head.")
    return len(more.links)


def check_certificate(certificate: Certificate) -> int:
    """How many links hold, from the first receipt to the head. Raises `LedgerBroken` that says what does not."""
    if not certificate.receipts:
        raise LedgerBroken("The certificate holds no receipt: it proves nothing.")
    first = certificate.receipts[0]
    by_sequence = {each.sequence: each for each in certificate.receipts}
    for receipt in certificate.receipts:
        if receipt.subject != certificate.batch_id or receipt.hash != receipt_hash(receipt) or receipt.remaining:
            raise LedgerBroken(f"Receipt {receipt.sequence} does not say what its hash says, or not of this batch.")
    at = first.hash
    for sequence, content in enumerate(certificate.links, start=first.sequence + 1):
        at = link(at, content)
        known = by_sequence.get(sequence)
        if known is not None and known.hash != at:
            raise LedgerBroken(f"Receipt {sequence} is not the one in the chain.")
    if at != certificate.head or first.sequence + len(certificate.links) != certificate.head_sequence:
        raise LedgerBroken("The chain does not lead from the receipt to the head.")
    if by_sequence.keys() - set(range(first.sequence, certificate.head_sequence + 1)):
        raise LedgerBroken("A receipt lies outside the chain that is shown.")
    return len(certificate.links)
