"""What is kept of a batch's outcomes is always what its reports say, and no report is read twice for nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from flows import steps
from flows.dispatch import Dispatcher
from flows.parts import Parts, open_parts
from portal import outcomes
from portal.batches import ask_again, call_off
from portal.outcomes import Became, Kind, Outcome, Outcomes
from schemas.batch import Counts, Item
from schemas.ids import BatchId
from schemas.naming import names_of
from schemas.results import Done, Failed, ShardReport
from store.records.batches import BatchRecord, get_batch
from store.records.people import create_account
from store.transient.transient_store import TransientStore
from tests.batches import lay_out, send_folder
from tests.portal.conftest import NOON
from tests.portal.test_batch_view import done, failed
from tests.records import at_home

CODES = ("not_an_image", "empty_file", "worker_lost")
PHOTOS = 12


class Watched(TransientStore):
    """Remembers the reports that were read."""

    def __init__(self, store: TransientStore) -> None:
        super().__init__(store.objects, lambda: NOON)
        self.read_by_now: list[str] = []

    def read_reports(self, batch_id: BatchId, names: Sequence[str]) -> Iterator[tuple[str, ShardReport]]:
        self.read_by_now += names
        return super().read_reports(batch_id, names)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(at_home(tmp_path / "home", shard_items=3), lambda: NOON)
    yield parts
    parts.records.engine.dispose()


@pytest.fixture
def batch_id(parts: Parts, tmp_path: Path) -> BatchId:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, Random(1).randbytes)
    photos = lay_out(tmp_path / "photos", {f"{number}.jpg": b"x" for number in range(PHOTOS)})
    return send_folder(parts, account_id, photos).batch_id


def record_of(parts: Parts, batch_id: BatchId) -> BatchRecord:
    with parts.records.reading() as connection:
        return get_batch(connection, batch_id)


def kinds(became: Became) -> list[Kind]:
    return [became.kind(number) for number in range(1, PHOTOS + 1)]


def as_reported(parts: Parts, batch_id: BatchId) -> list[Kind]:
    """What all reports say, read anew."""
    return kinds(Became.of(PHOTOS, [("report", each) for each in parts.transient.reports(batch_id)]))


@pytest.mark.parametrize("seed", range(12))
def test_through_turns_retries_and_cancels_it_is_what_the_reports_say(
    parts: Parts, batch_id: BatchId, seed: int
) -> None:
    random, moments = Random(seed), iter(range(10_000))
    clock = lambda: NOON.replace(microsecond=next(moments))  # noqa: E731 - each result has a moment of its own
    parts = replace(parts, clock=clock)
    known = Outcomes(parts.records, parts.transient)

    def cut(parts: Parts, batch_id: BatchId) -> Counts:
        def run(batch_id, shards, clock, keep, stopped):  # type: ignore[no-untyped-def]
            for shard in shards:
                if stopped() or random.random() < 0.1:
                    return
                all_fail = random.random() < 0.5
                results: list[Done | Failed] = [
                    failed(number, random.choice(CODES)).model_copy(update={"finished_at": clock()})
                    if all_fail or random.random() < 0.3
                    else done(number, *random.sample(["blurred", "cut_by_frame"], random.randrange(3)))
                    for number in shard
                ]
                report = ShardReport(first=shard[0], last=shard[-1], results=tuple(results))
                keep(report)
                yield report
                if random.random() < 0.1:
                    call_off(parts.records, clock, record_of(parts, batch_id))

        steps.cut(replace(parts, watch=look), steps.plan(parts, batch_id), run)
        return steps.finish(parts, batch_id)

    def look(_counts: Counts) -> None:
        """While it is being worked on, a code may be that of the failure before; nothing else is old."""
        if random.random() < 0.5:
            record = record_of(parts, batch_id)
            some = range(1, PHOTOS + 1) if random.random() < 0.5 else range(4, 8)
            became, real = known.of(record, some), as_reported(parts, batch_id)
            assert [became.kind(n).outcome for n in some] == [real[n - 1].outcome for n in some]

    for _ in range(12):
        Dispatcher(parts, "one", cut, threading.Event()).take_turn()
        record = record_of(parts, batch_id)
        assert kinds(known.of(record)) == as_reported(parts, batch_id)
        if record.state.has_ended and record.counts.done < PHOTOS:
            ask_again(parts.records, parts.transient, clock, record, None)


def test_no_report_is_read_twice_but_those_of_what_is_shown(parts: Parts, batch_id: BatchId) -> None:
    stamp = parts.transient.manifest(batch_id).stamp
    watched = Watched(parts.transient)
    known, later = Outcomes(parts.records, watched), NOON.replace(minute=1)

    def write(*results: Done | Failed) -> str:
        numbers = [each.number for each in results]
        parts.transient.write_report(stamp, ShardReport(first=numbers[0], last=numbers[-1], results=results))
        steps.finish(parts, batch_id)
        return named(numbers[0])[0]

    def named(first: int) -> list[str]:
        return [each for each in parts.transient.report_names(batch_id) if each.startswith(f"{first:06d}")]

    def read(numbers: range | None = None) -> list[str]:
        watched.read_by_now.clear()
        known.of(record_of(parts, batch_id), numbers)
        return list(watched.read_by_now)

    first, second = write(done(1), failed(2, "empty_file")), write(failed(4, "empty_file"), failed(5, "empty_file"))
    assert read(range(4, 5)) == [second], "what one photo needs"
    assert read() == [first]
    assert read() == []
    third = write(done(7))
    assert read() == [third]
    again = [failed(number, "not_an_image").model_copy(update={"finished_at": later}) for number in (4, 5)]
    parts.transient.write_report(stamp, ShardReport(first=4, last=5, results=tuple(again)))
    Dispatcher(replace(parts, clock=lambda: later), "one", steps.finish, threading.Event()).take_turn()
    assert read() == [name for name in named(4) if name != second], "the same photos were tried again"
    assert kinds(known.of(record_of(parts, batch_id))) == as_reported(parts, batch_id)
    became = known.of(record_of(parts, batch_id))
    watched.read_by_now.clear()
    found = known.results(record_of(parts, batch_id), became, [1, 2, 7, 9])
    assert (sorted(found), watched.read_by_now) == ([1, 2, 7], [first, third])
    assert became.kind(9) == Kind(Outcome.WAITING)


@pytest.mark.parametrize(("last", "expected"), [("11.jpg", 1), ("10.heic", 2)])
def test_all_cutouts_are_named_once_and_again_only_for_a_page_with_one_that_is_not_called_like_its_photo(
    parts: Parts, batch_id: BatchId, monkeypatch: pytest.MonkeyPatch, last: str, expected: int
) -> None:
    manifest, counted = parts.transient.manifest(batch_id), []
    items = tuple(Item(number=n, path=f"{n - 1}.jpg", size=1) for n in range(1, PHOTOS))
    manifest = manifest.model_copy(update={"items": (*items, Item(number=PHOTOS, path=last, size=1))})
    monkeypatch.setattr(outcomes, "names_of", lambda each: counted.append(each) or names_of(each))
    known, named = Outcomes(parts.records, parts.transient), {}
    for first in range(1, PHOTOS + 1, 2):
        page = range(first, first + 2)
        names = known.names(manifest, page)
        named |= {number: names[number] for number in page}
    assert (named, len(counted)) == (names_of(manifest), expected)


@pytest.mark.parametrize("photos", [PHOTOS, 2 * PHOTOS])
def test_of_more_photos_than_it_may_know_it_forgets_those_of_the_batch_that_nobody_looked_at_for_longest(
    parts: Parts, batch_id: BatchId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: int
) -> None:
    monkeypatch.setattr(outcomes, "_PHOTOS", photos)
    first = record_of(parts, batch_id)
    second = record_of(parts, send_folder(parts, first.account_id, tmp_path / "photos").batch_id)
    watched = Watched(parts.transient)
    for each in (first, second):
        manifest = parts.transient.manifest(each.stamp.batch_id)
        parts.transient.write_report(manifest.stamp, ShardReport(first=1, last=1, results=(done(1),)))
    known = Outcomes(parts.records, watched)
    for each in (first, second, first):
        assert known.of(each).kind(1).is_done
    assert len(watched.read_by_now) == (3 if photos == PHOTOS else 2)


def test_of_two_who_look_at_a_whole_batch_one_reads_it_and_who_asks_for_a_photo_waits_for_neither(
    parts: Parts, batch_id: BatchId
) -> None:
    stamp = parts.transient.manifest(batch_id).stamp
    for number in (1, 2):
        parts.transient.write_report(stamp, ShardReport(first=number, last=number, results=(done(number),)))
    steps.finish(parts, batch_id)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Watched):
        def read_reports(self, batch_id: BatchId, names: Sequence[str]) -> Iterator[tuple[str, ShardReport]]:
            for name, report in super().read_reports(batch_id, names):
                if len(names) > 1:
                    begun.set()
                    assert go_on.wait(300)
                yield name, report

    slow = Slow(parts.transient)
    known, record = Outcomes(parts.records, slow), record_of(parts, batch_id)
    both = [threading.Thread(target=known.of, args=(record,)) for _ in range(2)]
    for each in both:
        each.start()
    assert begun.wait(300)
    assert known.of(record, range(2, 3)).kind(2).is_done
    assert len(slow.read_by_now) == 3, "one for the photo"
    go_on.set()
    for each in both:
        each.join(300)
    assert len(slow.read_by_now) == 3
    assert kinds(known.of(record)) == as_reported(parts, batch_id)


def test_nobody_waits_for_whom_the_store_lets_wait(parts: Parts, batch_id: BatchId) -> None:
    parts.transient.write_report(
        parts.transient.manifest(batch_id).stamp, ShardReport(first=1, last=1, results=(done(1),))
    )
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Watched):
        def report_names(self, batch_id: BatchId) -> list[str]:
            if not begun.is_set():
                begun.set()
                assert go_on.wait(300)
            return super().report_names(batch_id)

    known, record, heard = Outcomes(parts.records, Slow(parts.transient)), record_of(parts, batch_id), list[bool]()
    first, second = (
        threading.Thread(target=lambda: heard.append(known.of(record, range(1, 2)).kind(1).is_done)) for _ in range(2)
    )
    first.start()
    assert begun.wait(300)
    second.start()
    second.join(60)
    assert heard == [True]
    go_on.set()
    first.join(300)
    assert heard == [True, True]


def test_what_is_reported_while_other_reports_are_read_is_heard_of(parts: Parts, batch_id: BatchId) -> None:
    stamp = parts.transient.manifest(batch_id).stamp
    old, new = (
        ShardReport(first=4, last=5, results=(result, failed(5, "empty_file")))
        for result in (failed(4, "empty_file"), done(4))
    )
    parts.transient.write_report(stamp, old)

    class Slow(Watched):
        """Meanwhile the same photos are tried again, and somebody asks for others."""

        def read_reports(self, batch_id: BatchId, names: Sequence[str]) -> Iterator[tuple[str, ShardReport]]:
            found = list(super().read_reports(batch_id, names))
            if names and len(self.read_by_now) == 1:
                parts.transient.write_report(stamp, new)
                steps.finish(parts, batch_id)
                known.of(record_of(parts, batch_id), range(1, 2))
            yield from found

    known = Outcomes(parts.records, Slow(parts.transient))
    known.of(record_of(parts, batch_id))
    assert kinds(known.of(record_of(parts, batch_id))) == as_reported(parts, batch_id)
