"""Random histories of consent, and the policy once more in ten lines, to hold the real one against.

A history is a list of steps by two accounts in two industries: press, say no, turn off, send a batch, and try to put
what was sent into the lake; time passes, runs backwards, and the text changes so that old grants do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise, product
from typing import Protocol

from tests.consent.conftest import NOON

PLACES = tuple(product(("acme", "bazaar"), ("automotive", "studio")))
Place = tuple[str, str]
MINUTE = timedelta(minutes=1)

_VERBS = ("press", "press", "withdraw", "decline", "send", "send", "wait", "ask again", "clock back")


@dataclass(frozen=True)
class Step:
    """`place` is whose and for which industry; it does not matter to all verbs."""

    verb: str
    place: Place


def steps(code: bytes) -> list[Step]:
    """The history that these bytes stand for: one step each."""
    return [Step(_VERBS[byte // 4 % len(_VERBS)], PLACES[byte % 4]) for byte in code]


@dataclass
class OnSince:
    """One stretch of a switch being on."""

    at: datetime


@dataclass
class Reference:
    """The policy as a person would say it: was it on when the batch came, and has it been on ever since?"""

    on: dict[Place, OnSince] = field(default_factory=dict)
    again: datetime | None = None

    def press(self, place: Place, now: datetime) -> None:
        if place not in self.on or (self.again is not None and self.on[place].at < self.again):
            self.on[place] = OnSince(now)

    def withdraw(self, place: Place) -> None:
        self.on.pop(place, None)

    def may(self, place: Place, sent: datetime, was_on: OnSince | None, now: datetime) -> bool:
        still_on = was_on is not None and self.on.get(place) is was_on
        in_time = was_on is not None and was_on.at <= sent <= now
        return still_on and in_time and (self.again is None or was_on.at >= self.again)


class Ledger(Protocol):
    """The real thing: the account's own functions behind the same four verbs."""

    def press(self, place: Place, now: datetime, again: datetime | None) -> None: ...
    def withdraw(self, place: Place, now: datetime) -> None: ...
    def decline(self, place: Place, now: datetime) -> None: ...
    def grant_now(self, place: Place) -> str | None:
        """What a batch of this account and industry is stamped with."""

    def may(self, place: Place, sent: datetime, grant: str | None, now: datetime, again: datetime | None) -> bool: ...


def play(history: list[Step], ledger: Ledger) -> Iterator[tuple[bool, bool]]:
    """Play a history on both. After each step, for each batch sent so far: what the ledger says, what is right."""
    reference, now = Reference(), NOON
    sent: list[tuple[Place, datetime, str | None, OnSince | None]] = []
    for step in history:
        now += MINUTE
        match step.verb:
            case "press":
                ledger.press(step.place, now, reference.again)
                reference.press(step.place, now)
            case "withdraw":
                ledger.withdraw(step.place, now)
                reference.withdraw(step.place)
            case "decline":
                ledger.decline(step.place, now)
            case "send":
                sent.append((step.place, now, ledger.grant_now(step.place), reference.on.get(step.place)))
            case "ask again":
                reference.again = now
            case "wait":
                now += 7 * MINUTE
            case "clock back":
                now -= 4 * MINUTE
        for place, at, grant, was_on in sent:
            yield ledger.may(place, at, grant, now, reference.again), reference.may(place, at, was_on, now)


def covered(history: list[Step]) -> bool:
    """Whether a history does anything worth telling: something is sent after a press of the same place."""
    return any(one.verb == "press" and two.verb == "send" and one.place == two.place for one, two in pairwise(history))
