"""Photos that are to be consistent, through the steps of a batch in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from flows import steps
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from schemas.results import Done, results_by_number
from store.transient.transient_store import alike_key, cutout_key
from tests.flows.conftest import Place, photo
from workers.cutter import Cutter, open_cutter
from workers.measuring import set_alike
from workers.shard import process_shard

ALIKE = CutoutOptions(consistent=True)
FILES = {"VIN1/1.jpg": photo("astronaut"), "VIN1/2.jpg": photo(), "VIN2/1.jpg": photo("coffee"), "VIN1/3.jpg": photo()}


@pytest.fixture(scope="module")
def cutter(tmp_path_factory: pytest.TempPathFactory) -> Cutter:
    from store.settings import Settings

    return open_cutter(Settings(home=tmp_path_factory.mktemp("home")))


def running(place: Place, cutter: Cutter) -> steps.RunShards:
    def run(batch_id, shards, clock, keep, stop) -> Iterator:  # type: ignore[no-untyped-def]
        manifest = place.parts.transient.manifest(batch_id)
        for shard in shards:
            if stop():
                return
            yield process_shard(place.parts.transient, cutter, manifest, shard, clock)

    return run


def cutouts(place: Place, batch_id: BatchId) -> dict[int, bytes]:
    results = results_by_number(place.parts.transient.reports(batch_id))
    done = [number for number, each in results.items() if isinstance(each, Done)]
    return {number: place.parts.transient.read(cutout_key(batch_id, number, ".png")) for number in sorted(done)}


def test_a_batch_that_is_called_off_while_it_is_measured_cuts_nothing_and_comes_to_the_same_end_later(
    place: Place, cutter: Cutter
) -> None:
    at_once, in_parts = (place.send(FILES, options=ALIKE).batch_id for _ in range(2))
    run = running(place, cutter)
    steps.cut(place.parts, steps.plan(place.parts, at_once), run)
    whole = cutouts(place, at_once)
    assert list(whole) == [1, 2, 3, 4]
    answers = iter([False, True])  # after the first call of two photos
    hurried = replace(place.parts, stop=lambda _: next(answers))
    counts = steps.cut(hurried, steps.plan(hurried, in_parts), run)
    assert (counts.done, counts.failed) == (0, 0)
    assert not place.parts.transient.objects.exists(alike_key(in_parts))
    assert steps.cut(place.parts, steps.plan(place.parts, in_parts), run).done == 4
    assert cutouts(place, in_parts) == whole


def test_a_crash_after_the_last_measure_leaves_nothing_undone(
    place: Place, cutter: Cutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = place.send(FILES, options=ALIKE).batch_id

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "set_alike", crash)
    with pytest.raises(KeyboardInterrupt):
        steps.cut(place.parts, steps.plan(place.parts, batch_id), running(place, cutter))
    monkeypatch.setattr(steps, "set_alike", set_alike)
    counts = steps.cut(place.parts, steps.plan(place.parts, batch_id), running(place, cutter))
    assert counts.done == 4


def test_no_name_of_a_folder_stands_in_what_its_photos_have_in_common(place: Place, cutter: Cutter) -> None:
    batch_id = place.send(FILES, options=ALIKE).batch_id
    steps.cut(place.parts, steps.plan(place.parts, batch_id), running(place, cutter))
    assert b"VIN" not in place.parts.transient.read(alike_key(batch_id))
