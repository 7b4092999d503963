"""While a command copies candidates into a place, no other pull begins there, nor inside it or around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.lease import renewed
from flows.parts import Parts
from lake import copies_under_way
from portal.cli.this_command import holder_name, host_name, is_gone
from schemas.errors import CopyInTheWay


@contextmanager
def holding_place(parts: Parts, place: str) -> Iterator[Callable[[], None]]:
    """Make a copy of candidates there, alone, until the end of the block. What it gives is called before each step.

    That raises `CopyInTheWay` when another pull has begun there while this one stood still; so does this itself when
    one is under way. A folder is this machine's own.
    """
    holder, name = holder_name(), place if place.startswith("s3://") else f"{host_name()} {place}"

    def renew() -> bool:
        with parts.records.transaction() as connection:
            return copies_under_way.keep_place(connection, name, holder, parts.clock())

    other: str | None = None
    try:  # begun before it is held: a stop that comes while that is recorded is heard when it is
        with parts.records.transaction() as connection:
            other = copies_under_way.hold_place(connection, name, holder, parts.clock(), is_gone)
        if other is not None:
            raise CopyInTheWay(
                "Another pull writes into this place just now, or into one inside or around it. Wait for its end, or "
                "choose another place. If it was killed on another machine, the place is free a minute later."
            )
        with renewed(copies_under_way.LEASE_LIFE, renew) as lost:

            def require_ours() -> None:
                if lost.is_set() or not renew():
                    raise CopyInTheWay(
                        "This pull stood still for so long that another one has begun in its place. Wait for its end."
                    )

            yield require_ours
    finally:
        if other is None:
            with parts.records.transaction() as connection:
                copies_under_way.leave_place(connection, name, holder)
