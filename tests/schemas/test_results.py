"""What became of an item does not hang on the order in which its reports are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from portal.outcomes import Became, Kind, Outcome
from schemas.results import Done, Failed, ShardReport, results_by_number, standing
from tests.batches import done

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def result(number: int, code: str | None, microseconds: int) -> Done | Failed:
    finished = NOON + timedelta(microseconds=microseconds)
    if code is not None:
        return Failed(number=number, code=code, sentence="It is empty.", finished_at=finished)
    flags = ("blurred",) if microseconds % 2 else ()
    return done(number, finished, size=microseconds).model_copy(update={"flags": flags})


RESULTS = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([None, "empty_file", "worker_lost"])), min_size=1, max_size=12
)


@given(RESULTS, st.randoms(use_true_random=False))
def test_a_cutout_beats_a_failure_and_the_later_the_earlier_whatever_is_read_first(drawn, random):
    in_time = [result(number, code, moment) for moment, (number, code) in enumerate(drawn)]
    wanted = {each.number: each for each in sorted(in_time, key=lambda each: isinstance(each, Done))}
    shuffled = random.sample(in_time, len(in_time))
    reports = [ShardReport(first=each.number, last=each.number, results=(each,)) for each in shuffled]
    assert results_by_number(reports) == wanted
    stands = standing(reports)
    assert stands.done == {number for number, each in wanted.items() if isinstance(each, Done)}
    assert stands.failed == {number: each for number, each in wanted.items() if isinstance(each, Failed)}
    became = Became.of(4, [(str(place), report) for place, report in enumerate(reports)])
    for number in range(1, 5):
        known = wanted.get(number)
        if known is None:
            assert became.kind(number) == Kind(Outcome.WAITING)
        else:
            assert became.kind(number).is_done == isinstance(known, Done)
            assert became.kind(number).codes == (known.flags if isinstance(known, Done) else (known.code,))
            assert became.reports_of([number]) == [str(shuffled.index(known))]
