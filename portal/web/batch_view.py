"""What the page of a batch lists, as a value: what needs a look first, by outcome, code and name, page by page.

Pure. Paths are the customer's own names for their photos; they are shown and not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from schemas.batch import Item
from schemas.results import Done, Failed

PAGE = 24


class Outcome(StrEnum):
    """What became of a photo, in the order in which people want to see them. `check`: done, but have a look."""

    FAILED = "failed"
    CHECK = "check"
    WAITING = "waiting"
    GOOD = "good"


_ORDER = list(Outcome)


@dataclass(frozen=True)
class Asked:
    """Which photos to list: of one outcome, with one code or flag, with these letters in their path."""

    outcome: Outcome | None = None
    code: str = ""
    find: str = ""
    page: int = 1


@dataclass(frozen=True)
class ItemView:
    """A photo as the page shows it. `lies_over`: its cutout has the same shape, so one can lie over the other."""

    number: int
    path: str
    outcome: Outcome
    codes: tuple[str, ...] = ()
    sentence: str = ""
    width: int = 0
    height: int = 0
    lies_over: bool = False

    @property
    def is_done(self) -> bool:
        """Whether there is a cutout."""
        return self.outcome in (Outcome.CHECK, Outcome.GOOD)


@dataclass(frozen=True)
class Listing:
    """One page of a batch's photos. `outcomes`, `codes` and `flags` count all of it, `found` what was asked for."""

    items: tuple[ItemView, ...]
    found: int
    page: int
    pages: int
    outcomes: Mapping[Outcome, int]
    codes: Mapping[str, int]
    flags: Mapping[str, int]
    folders: tuple[str, ...]


def list_items(items: Iterable[Item], results: Mapping[int, Done | Failed], asked: Asked) -> Listing:
    """The page that was asked for; the last one when there are fewer."""
    views = [_view(item, results.get(item.number)) for item in items]
    letters = asked.find.casefold().strip()
    found = [
        view
        for view in views
        if asked.outcome in (None, view.outcome)
        and (not asked.code or asked.code in view.codes)
        and letters in view.path.casefold()
    ]
    found.sort(key=lambda view: (_ORDER.index(view.outcome), view.number))
    pages = max(1, -(-len(found) // PAGE))
    page = min(asked.page, pages)
    return Listing(
        items=tuple(found[(page - 1) * PAGE : page * PAGE]),
        found=len(found),
        page=page,
        pages=pages,
        outcomes=Counter(view.outcome for view in views),
        codes=_counted(view for view in views if view.outcome is Outcome.FAILED),
        flags=_counted(view for view in views if view.outcome is Outcome.CHECK),
        folders=tuple(sorted({folder for view in views if (folder := view.path.rpartition("/")[0])})),
    )


def _counted(views: Iterable[ItemView]) -> dict[str, int]:
    """Code -> photos, the most frequent first."""
    return dict(Counter(code for view in views for code in view.codes).most_common())


def _view(item: Item, result: Done | Failed | None) -> ItemView:
    if result is None:
        return ItemView(item.number, item.path, Outcome.WAITING)
    if isinstance(result, Failed):
        return ItemView(item.number, item.path, Outcome.FAILED, (result.code,), result.sentence)
    across, down = result.width * result.source_height, result.height * result.source_width
    return ItemView(
        item.number,
        item.path,
        Outcome.CHECK if result.flags else Outcome.GOOD,
        result.flags,
        width=result.source_width,
        height=result.source_height,
        lies_over=abs(across - down) <= 0.02 * down,  # a scaled cutout's sides are rounded
    )
