"""What a batch page lists: failures first, then what needs a look; by outcome, code, flag and name; each photo once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from portal.outcomes import Became, Outcome
from portal.web.batch_view import PAGE, Asked, Listing, list_items
from schemas.results import Done, Failed, Scores, ShardReport

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
SCORES = Scores(coverage=0.3, edge_uncertainty=0, pieces=1, cut_by_frame=0, sharpness=1, exposure=0.5)
PATHS = [f"VIN{n % 2}/{n}.jpg" for n in range(1, 101)]


def done(number: int, *flags: str, size: tuple[int, int] = (400, 300)) -> Done:
    return Done(
        number=number,
        width=size[0],
        height=size[1],
        bytes=1,
        source_width=800,
        source_height=600,
        scores=SCORES,
        flags=flags,
        network="n",
        weights_sha256="0",
        device="cpu",
        finished_at=NOON,
    )


def failed(number: int, code: str) -> Failed:
    return Failed(number=number, code=code, sentence="It failed.", finished_at=NOON)


RESULTS: dict[int, Done | Failed] = {n: done(n) for n in range(1, 91)} | {
    7: done(7, "cut_by_frame"),
    8: done(8, "cut_by_frame", "blurred"),
    50: failed(50, "not_an_image"),
    51: failed(51, "empty_file"),
    52: failed(52, "empty_file"),
}


def became_of(results: dict[int, Done | Failed], items: int) -> Became:
    report = ShardReport(first=min(results), last=max(results), results=tuple(results.values()))
    return Became.of(items, [("report", report)])


def listed(**asked: object) -> Listing:
    return list_items(PATHS, became_of(RESULTS, 100), Asked(**asked), lambda some: RESULTS)  # type: ignore[arg-type]


def test_what_failed_stands_first_then_what_needs_a_look_then_what_waits() -> None:
    assert [item.number for item in listed().items[:6]] == [50, 51, 52, 7, 8, 91]
    assert listed().outcomes == {Outcome.FAILED: 3, Outcome.CHECK: 2, Outcome.WAITING: 10, Outcome.GOOD: 85}
    assert listed().codes == {"empty_file": 2, "not_an_image": 1}
    assert listed().flags == {"cut_by_frame": 2, "blurred": 1}
    assert listed().folders == ("VIN0", "VIN1")


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({"outcome": Outcome.FAILED}, [50, 51, 52]),
        ({"outcome": Outcome.CHECK}, [7, 8]),
        ({"code": "empty_file"}, [51, 52]),
        ({"code": "blurred"}, [8]),
        ({"find": " vin0/5 ", "outcome": Outcome.FAILED}, [50, 52]),
        ({"find": "nothing"}, []),
    ],
)
def test_filters(asked: dict[str, object], numbers: list[int]) -> None:
    assert [item.number for item in listed(**asked).items] == numbers


def test_pages_hold_each_photo_once_and_there_is_none_beyond_the_last() -> None:
    pages = [listed(page=page) for page in range(1, listed().pages + 1)]
    assert sorted(item.number for page in pages for item in page.items) == list(range(1, 101))
    assert all(len(page.items) == PAGE for page in pages[:-1])
    assert listed(page=1_000) == pages[-1]


def test_a_cutout_lies_over_its_photo_only_when_it_has_the_same_shape() -> None:
    results: dict[int, Done | Failed] = {1: done(1), 2: done(2, size=(300, 300)), 3: done(3, size=(133, 100))}
    views = list_items(PATHS[:3], became_of(results, 3), Asked(), lambda some: results).items
    assert [view.lies_over for view in views] == [True, False, True]
