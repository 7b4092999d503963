"""What the page of a batch lists, as a value: what needs a look first, by outcome, code and name, page by page.

Pure, but for the look at what is known of the few that are shown. Paths are the customer's own names for their photos;
they are shown and not kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from portal.outcomes import Became, Kind, Outcome, kind_of
from schemas.results import Done, Failed

PAGE = 24
Look = Callable[[Sequence[int]], Mapping[int, Done | Failed]]
"""All that is known of these few photos."""
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
    kind: Kind
    sentence: str = ""
    width: int = 0
    height: int = 0
    cutout_width: int = 0
    cutout_height: int = 0
    lies_over: bool = False


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


def list_items(paths: Sequence[str], became: Became, asked: Asked, results: Look) -> Listing:
    """The page that was asked for; the last one when there are fewer."""
    numbers = _in_order(became, _found(paths, became, asked))
    pages = max(1, -(-len(numbers) // PAGE))
    page = min(asked.page, pages)
    shown = numbers[(page - 1) * PAGE : page * PAGE]
    known = results(shown)
    counts = {became.kinds[place]: count for place, count in Counter(became.kind_of).items()}
    outcomes: Counter[Outcome] = Counter()
    for kind, count in counts.items():
        outcomes[kind.outcome] += count
    return Listing(
        items=tuple(_view(number, paths[number - 1], known.get(number)) for number in shown),
        found=len(numbers),
        page=page,
        pages=pages,
        outcomes=outcomes,
        codes=_by_code(counts, Outcome.FAILED),
        flags=_by_code(counts, Outcome.CHECK),
        folders=tuple(sorted({folder for path in paths if (folder := path.rpartition("/")[0])})),
    )


def _found(paths: Sequence[str], became: Became, asked: Asked) -> Iterable[int]:
    """The numbers of the photos that were asked for."""
    letters = asked.find.casefold().strip()
    wanted = {
        place
        for place, kind in enumerate(became.kinds)
        if asked.outcome in (None, kind.outcome) and (not asked.code or asked.code in kind.codes)
    }
    numbers: Iterable[int] = range(1, len(paths) + 1)
    if len(wanted) < len(became.kinds):
        numbers = [number for number, place in enumerate(became.kind_of, start=1) if place in wanted]
    return [number for number in numbers if letters in paths[number - 1].casefold()] if letters else numbers


def _in_order(became: Became, numbers: Iterable[int]) -> list[int]:
    rank = [_ORDER.index(kind.outcome) for kind in became.kinds]
    return sorted(numbers, key=lambda number: rank[became.kind_of[number - 1]])  # by number within each, as they come


def _by_code(counts: Mapping[Kind, int], outcome: Outcome) -> dict[str, int]:
    """Code -> photos, the most frequent first."""
    found: Counter[str] = Counter()
    for kind, count in counts.items():
        if kind.outcome is outcome:
            found.update(dict.fromkeys(kind.codes, count))
    return dict(found.most_common())


def _view(number: int, path: str, result: Done | Failed | None) -> ItemView:
    if not isinstance(result, Done):
        return ItemView(number, path, kind_of(result), result.sentence if result is not None else "")
    across, down = result.width * result.source_height, result.height * result.source_width
    return ItemView(
        number,
        path,
        kind_of(result),
        width=result.source_width,
        height=result.source_height,
        cutout_width=result.width,
        cutout_height=result.height,
        lies_over=abs(across - down) <= 0.02 * down,  # a scaled cutout's sides are rounded
    )
