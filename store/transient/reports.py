"""A batch's reports as objects: what each is called, and many of them in one.

A report is named for its items and for what it says, so an object of one name always says the same. A batch of 100,000
photos has 12,500 of them, which S3 hands out one by one in half a minute. So those of a batch that was worked on are
gathered, hundreds in an object: a line for each, with its name and its JSON. What was gathered stays where it was too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

TOGETHER = 512
"""Reports in a gathering at most: of 4,000 photos, in 2 MB."""
_NAMED = b" "
_LINE = b"\n"


def report_name(numbers: Sequence[int], data: bytes) -> str:
    """What a report of these items is called. It says nothing of others before or after them: `first_and_last`."""
    return f"{numbers[0]:06d}-{numbers[-1]:06d}-{hashlib.sha256(data).hexdigest()[:16]}.json"


def gathering_name(reports: Sequence[str]) -> str:
    """What a gathering of these reports is called; `first_and_last` tells of it what it tells of each of them."""
    ends = [first_and_last(name) for name in reports]
    first, last = min(first for first, _ in ends), max(last for _, last in ends)
    digest = hashlib.sha256(",".join(reports).encode()).hexdigest()[:16]
    return f"{first:06d}-{last:06d}-{digest}.lines"


def first_and_last(name: str) -> tuple[int, int]:
    """The items between which all lie that a report, or a gathering, speaks of."""
    first, last, _ = name.split("-")
    return int(first), int(last)


def gathered(reports: Sequence[tuple[str, bytes]]) -> bytes:
    """Many reports as one object."""
    return _LINE.join(name.encode() + _NAMED + data for name, data in reports)


def each_in(gathering: bytes) -> Iterator[tuple[str, bytes]]:
    """The reports in such an object. Of a damaged one they may be anything."""
    for line in gathering.split(_LINE):
        name, _, data = line.partition(_NAMED)
        yield name.decode(errors="replace"), data
