"""Names for things. An id never carries a customer's words, and the exact age of a batch is read off its id alone."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NewType

AccountId = NewType("AccountId", str)
PersonId = NewType("PersonId", str)
BatchId = NewType("BatchId", str)
GrantId = NewType("GrantId", str)

Randomness = Callable[[int], bytes]
"""`n -> n random bytes`; `os.urandom` at the entry points, a seeded generator in tests."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_GRANT = re.compile(r"g[0-9a-f]{32}")


def new_batch_id(now: datetime, randomness: Randomness) -> BatchId:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds since 1970, then 74 random bits."""
    milliseconds = (now - _EPOCH) // _MILLISECOND
    bits = int.from_bytes(randomness(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | bits & (1 << 62) - 1
    return BatchId(str(uuid.UUID(int=value)))


def parse_batch_id(text: str) -> BatchId | None:
    """The id when `text` is a canonical UUIDv7, else None."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    is_canonical = str(value) == text and value.version == 7 and value.variant == uuid.RFC_4122
    return BatchId(text) if is_canonical else None


def received_at(batch_id: BatchId) -> datetime:
    """When the server opened the batch (UTC, whole milliseconds)."""
    try:
        return _EPOCH + (uuid.UUID(batch_id).int >> 80) * _MILLISECOND
    except OverflowError:  # the last 2 % of the 48 bits lie past the year 9999
        return datetime.max.replace(tzinfo=UTC)


def new_account_id(randomness: Randomness) -> AccountId:
    """`a` and 32 hex digits: says nothing about who it is."""
    return AccountId("a" + randomness(16).hex())


def new_person_id(randomness: Randomness) -> PersonId:
    """`p` and 32 hex digits."""
    return PersonId("p" + randomness(16).hex())


def new_grant_id(randomness: Randomness) -> GrantId:
    """`g` and 32 hex digits: a partition value that no Parquet reader mistakes for a number."""
    return GrantId("g" + randomness(16).hex())


def parse_grant_id(text: str) -> GrantId | None:
    """The id when `text` has the form that `new_grant_id` makes, else None."""
    return GrantId(text) if _GRANT.fullmatch(text) else None
