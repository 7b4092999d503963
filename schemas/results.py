"""What became of an item. Results hold numbers and codes, no names: they may pass through the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from schemas.record import Moment, Record


class Scores(Record):
    """What can be told of a photo and its mask without knowing the truth. All but `pieces` are from 0 to 1.

    `coverage`: mean alpha. `edge_uncertainty`: share of the subject's pixels with alpha strictly between 5 % and 95 %.
    `pieces`: separate parts of the subject, specks left out. `cut_by_frame`: share of the frame's outline that lies on
    the subject. `sharpness`: fine detail on the subject, as it looks at some 640 to 1,280 pixels. `exposure`: the
    subject's mean lightness.
    """

    coverage: float
    edge_uncertainty: float
    pieces: int
    cut_by_frame: float
    sharpness: float
    exposure: float


class Done(Record):
    """A cutout was written. `width` and `height` are those of the cutout in pixels, `bytes` its file size.

    `flags`: why a person should look at it before it is delivered, if there is a reason. `source_sha256`: of the bytes
    that it was cut from, if they stay where their owner can replace them and may be offered to the lake.
    """

    outcome: Literal["done"] = "done"
    number: int
    width: int
    height: int
    bytes: int
    source_width: int
    source_height: int
    scores: Scores
    flags: tuple[str, ...] = ()
    network: str
    weights_sha256: str
    device: str
    finished_at: Moment
    source_sha256: str | None = None


class Failed(Record):
    """No cutout. `code` is the stable code of a `schemas.errors.ItemError`, `sentence` says it to people."""

    outcome: Literal["failed"] = "failed"
    number: int
    code: str
    sentence: str
    finished_at: Moment


class ShardReport(Record):
    """The results of one call to an actor: each of its items exactly once, `first` and `last` and those between.

    A call that only measured its items has results for those that failed.
    Not every number between need be there: a batch that is run again does only what is not done.
    """

    first: int
    last: int
    results: tuple[Done | Failed, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The items that it speaks of."""
        return tuple(result.number for result in self.results)


def results_by_number(reports: Iterable[ShardReport]) -> dict[int, Done | Failed]:
    """One result per item. What ran twice was reported twice: a cutout beats a failure, else the later the earlier."""
    results: dict[int, Done | Failed] = {}
    for report in reports:
        for result in report.results:
            known = results.get(result.number)
            if known is None or _beats(result, known):
                results[result.number] = result
    return results


@dataclass
class Standing:
    """What became of each item, without what is known of the cutouts: of a million that would fill the memory."""

    done: set[int] = field(default_factory=set)
    failed: dict[int, Failed] = field(default_factory=dict)

    def take(self, report: ShardReport) -> None:
        """By the same rule as `results_by_number`."""
        for result in report.results:
            number = result.number
            if isinstance(result, Done):
                self.done.add(number)
                self.failed.pop(number, None)
            elif number not in self.done:
                known = self.failed.get(number)
                self.failed[number] = result if known is None or _beats(result, known) else known


def standing(reports: Iterable[ShardReport]) -> Standing:
    """How far a batch is."""
    found = Standing()
    for report in reports:
        found.take(report)
    return found


def _beats(result: Done | Failed, known: Done | Failed) -> bool:
    return (isinstance(result, Done), result.finished_at) > (isinstance(known, Done), known.finished_at)
