"""Reports that were gathered say what they said one by one, whatever befalls a gathering."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from schemas.errors import StoreFault
from schemas.results import Failed, ShardReport
from store.objects.object_store import ObjectStore
from store.objects.storage import Storage
from store.transient.transient_store import TransientStore, batch_prefix
from tests.store.conftest import NOON, stamp

STAMP = stamp()
MANY = 240
"""Three gatherings of `FEW`."""
FEW = 110


@pytest.fixture(autouse=True)
def few_in_a_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.transient.transient_store.TOGETHER", FEW)


class Watched:
    """A storage that remembers what was read and written, and refuses some writes."""

    def __init__(self, storage: Storage, writes: int = 10**9) -> None:
        self._storage = storage
        self.read: list[str] = []
        self.wrote: list[str] = []
        self.writes = writes

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return self._storage.get(key)

    def put(self, key: str, data: bytes) -> None:
        if len(self.wrote) == self.writes:
            raise OSError("no more room")
        self._storage.put(key, data)
        self.wrote.append(key)


def watched(objects: ObjectStore, writes: int = 10**9) -> tuple[TransientStore, Watched]:
    watch = Watched(objects.storage, writes)
    return TransientStore(ObjectStore(watch, pause=lambda seconds: None), lambda: NOON), watch  # type: ignore[arg-type]


def report(number: int, code: str = "empty_file") -> ShardReport:
    sentence = "Zwei Zeilen\nund ein  Leerzeichen: 木"
    failed = Failed(number=number, code=code, sentence=sentence, finished_at=NOON)
    return ShardReport(first=number, last=number, results=(failed,))


def write(transient: TransientStore, numbers: Iterable[int], code: str = "empty_file") -> list[ShardReport]:
    reports = [report(number, code) for number in numbers]
    for each in reports:
        transient.write_report(STAMP, each)
    return reports


def read(transient: TransientStore) -> list[ShardReport]:
    return sorted(transient.reports(STAMP.batch_id), key=lambda each: (each.first, str(each.results)))


@pytest.mark.parametrize("objects", ["folder", "rclone"], indirect=True)
def test_gathered_reports_are_read_with_few_calls_and_say_the_same(objects: ObjectStore) -> None:
    transient, watch = watched(objects)
    reports = write(transient, range(1, MANY + 1))
    transient.gather_reports(STAMP)
    watch.read.clear()
    assert read(transient) == reports
    assert len(watch.read) == 3
    watch.read.clear()
    some = transient.report_names(STAMP.batch_id)[:100]
    found = dict(transient.read_reports(STAMP.batch_id, some))
    assert (sorted(found), len(watch.read)) == (some, 1), "and nothing else of it"


@pytest.mark.parametrize("objects", ["folder"], indirect=True)
def test_what_is_reported_after_a_gathering_is_heard_of_and_gathered_with_the_next(objects: ObjectStore) -> None:
    transient, watch = watched(objects)
    reports = write(transient, range(1, 101))
    transient.gather_reports(STAMP)
    reports += write(transient, range(1, 11), "not_an_image")
    assert read(transient) == sorted(reports, key=lambda each: (each.first, str(each.results)))
    watch.wrote.clear()
    transient.gather_reports(STAMP)
    assert watch.wrote == [], "so few are not worth it"
    reports += write(transient, range(11, 101), "not_an_image")
    watch.wrote.clear()
    transient.gather_reports(STAMP)
    assert len(watch.wrote) == 1
    transient.gather_reports(STAMP)
    assert len(watch.wrote) == 1, "once"
    watch.read.clear()
    assert read(transient) == sorted(reports, key=lambda each: (each.first, str(each.results)))
    assert len(watch.read) == 2


@pytest.mark.parametrize("objects", ["folder"], indirect=True)
def test_a_gathering_that_broke_off_is_taken_up_where_it_stood(objects: ObjectStore) -> None:
    transient, watch = watched(objects)
    reports = write(transient, range(1, MANY + 1))
    watch.writes = MANY + 1
    with pytest.raises(StoreFault):
        transient.gather_reports(STAMP)
    assert read(transient) == reports
    watch.writes = 10**9
    transient.gather_reports(STAMP)
    assert len(watch.wrote) == MANY + 3
    watch.read.clear()
    assert read(transient) == reports
    assert len(watch.read) == 3


@pytest.mark.parametrize("objects", ["folder"], indirect=True)
@pytest.mark.parametrize("damage", [b"", b"\xff\x00 {}", b"000001-000001-ab.json", b" \n \n\n{"])
def test_a_damaged_gathering_costs_nothing_but_time(objects: ObjectStore, damage: bytes) -> None:
    transient, _ = watched(objects)
    reports = write(transient, range(1, 101))
    transient.gather_reports(STAMP)
    folder = f"{batch_prefix(STAMP.batch_id)}/gathered"
    (name,) = objects.files(folder)
    whole = objects.read(f"{folder}/{name}")
    for data in (damage, whole[: len(whole) // 2], whole[len(whole) // 2 :], damage + whole, whole.replace(b"{", b"[")):
        objects.write(f"{folder}/{name}", data)
        assert read(transient) == reports


@pytest.mark.parametrize("objects", ["folder"], indirect=True)
def test_different_items_or_results_never_share_a_report_and_the_same_do(objects: ObjectStore) -> None:
    transient, _ = watched(objects)
    failures = {number: report(number).results for number in range(1, 29)}
    for numbers in ([1, 8], range(1, 9), [1, 2, 8], [1, 28], [1, 8]):
        results = tuple(each for number in numbers for each in failures[number])
        transient.write_report(STAMP, ShardReport(first=numbers[0], last=numbers[-1], results=results))
    transient.write_report(STAMP, report(1))
    transient.write_report(STAMP, report(1, "not_an_image"))
    assert len(transient.report_names(STAMP.batch_id)) == 4 + 2
