from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from weakref import WeakSet

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from schemas.batch import Item, Manifest, Stamp
from schemas.errors import DeviceBroken, OutOfMemory, PastDeadline, StoreFault
from schemas.ids import GrantId, new_batch_id
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Done, Failed
from store.objects.object_store import open_store
from store.settings import Settings
from store.transient.transient_store import (
    TransientStore,
    batch_prefix,
    coarse_mask_key,
    cutout_key,
    manifest_key,
    mask_key,
    source_key,
)
from tests.workers.conftest import coarse
from tests.workers.photos import PHOTOS
from workers.cutter import Cutter
from workers.decode import decode
from workers.lanes import Pace
from workers.measuring import set_alike, unmeasured
from workers.shard import process_shard

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
GRANT = GrantId("g" + "0" * 32)
PHOTO = PHOTOS[1].read_bytes()
SECRET = "VIN-1FTFW1ET5DFC10312"


def manifest_of(sources: list[bytes | int | None], transient: TransientStore, grant: GrantId | None = None) -> Manifest:
    """A sealed batch. A source is its bytes, or a size alone (so large that it was not uploaded), or None (lost)."""
    batch_id = new_batch_id(NOW, lambda n: bytes(n))
    stamp = Stamp(
        batch_id=batch_id,
        received_at=NOW,
        purge_at=NOW + timedelta(hours=23),
        industry=Industry.AUTOMOTIVE,
        grant_id=grant,
        options=CutoutOptions(),
    )
    items = []
    for number, source in enumerate(sources, start=1):
        size = source if isinstance(source, int) else len(source or b"lost")
        items.append(Item(number=number, path=f"{SECRET}/{number}.jpg", size=size))
        if isinstance(source, bytes):
            transient.write(stamp, source_key(batch_id, number), source)
    manifest = Manifest(stamp=stamp, items=tuple(items))
    transient.seal(manifest)
    return manifest


@pytest.fixture(scope="module")
def cutter(cutter: Cutter) -> Cutter:
    return coarse(cutter)


@pytest.fixture
def transient(tmp_path) -> TransientStore:
    settings = Settings(home=tmp_path)
    return TransientStore(open_store(settings.transient_root, settings), lambda: NOW)


def test_each_item_ends_with_its_own_result_and_the_rest_goes_on(transient, cutter):
    sources = [PHOTO, b"", b"no image", PHOTO[: len(PHOTO) // 2], 3_000_000, None, PHOTO]
    manifest = manifest_of(sources, transient)
    report = process_shard(transient, cutter, manifest, range(1, 8), lambda: NOW)
    outcomes = [each.code if isinstance(each, Failed) else each.outcome for each in report.results]
    assert outcomes == [
        "done",
        "empty_file",
        "not_an_image",
        "damaged_image",
        "file_too_large",
        "source_missing",
        "done",
    ]
    assert report.numbers == (1, 2, 3, 4, 5, 6, 7)
    assert all(each.sentence.endswith(".") for each in report.results if isinstance(each, Failed))


def test_a_photo_that_is_just_as_large_as_is_taken_is_looked_for(transient, cutter):
    most = cutter.limits.bytes
    report = process_shard(transient, cutter, manifest_of([most, most + 1], transient), [1, 2], lambda: NOW)
    assert [each.code for each in report.results] == ["source_missing", "file_too_large"]


def test_whoever_waits_for_a_shard_hears_of_each_step_whether_it_failed_or_not(transient, cutter):
    manifest, moved = manifest_of([PHOTO, b"no image"], transient), []
    process_shard(transient, cutter, manifest, [1, 2], lambda: NOW, lambda: moved.append(1))
    assert len(moved) == 5 * 2


def test_a_cutout_lies_beside_its_source_with_a_result_that_names_network_weights_and_device(transient, cutter):
    manifest = manifest_of([PHOTO], transient)
    (done,) = process_shard(transient, cutter, manifest, [1], lambda: NOW).results
    assert isinstance(done, Done)
    file = transient.read(cutout_key(manifest.stamp.batch_id, 1, ".png"))
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (done.height, done.width, 4)
    assert (done.bytes, done.network, done.device) == (len(file), "u2netp", "cpu")
    assert done.weights_sha256 == cutter.weights_sha256
    assert len(done.weights_sha256) == 64


def test_a_mask_of_full_size_is_kept_only_where_a_grant_was_live(transient, cutter):
    without = manifest_of([PHOTO], transient)
    process_shard(transient, cutter, without, [1], lambda: NOW)
    assert not transient.objects.exists(mask_key(without.stamp.batch_id, 1))
    granted = manifest_of([PHOTO], transient, GRANT)
    process_shard(transient, cutter, granted, [1], lambda: NOW)
    data = transient.read(mask_key(granted.stamp.batch_id, 1))
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8
    assert mask.shape == decode(PHOTO, cutter.limits).rgb.shape[:2]


def test_items_run_again_do_not_overwrite_the_report_of_those_between(transient, cutter):
    manifest = manifest_of([PHOTO, b"", PHOTO], transient)
    process_shard(transient, cutter, manifest, [1, 2, 3], lambda: NOW)
    process_shard(transient, cutter, manifest, [1, 3], lambda: NOW)
    reports = transient.reports(manifest.stamp.batch_id)
    assert sorted(report.numbers for report in reports) == [(1, 2, 3), (1, 3)]


def test_a_damaged_report_says_nothing_so_its_items_are_done_again(transient, cutter):
    manifest = manifest_of([PHOTO], transient)
    batch_id = manifest.stamp.batch_id
    for damage in (b"", b'{"first":1,"last":1,"results":[{"outcome":"done","by":"a later version"}]}'):
        process_shard(transient, cutter, manifest, [1], lambda: NOW)
        assert [report.numbers for report in transient.reports(batch_id)] == [(1,)]
        (name,) = transient.report_names(batch_id)
        transient.write(manifest.stamp, f"{batch_prefix(batch_id)}/report/{name}", damage)
        assert list(transient.reports(batch_id)) == []


def test_a_damaged_manifest_is_the_stores_fault_and_is_not_quoted(transient):
    manifest = manifest_of([PHOTO], transient)
    whole = manifest.model_dump_json().encode()
    for damage in (b"", whole[:-5], whole.replace(b'"size"', b'"seize"')):
        transient.write(manifest.stamp, manifest_key(manifest.stamp.batch_id), damage)
        with pytest.raises((StoreFault, ValidationError)) as told:
            transient.manifest(manifest.stamp.batch_id).items[0]
        assert SECRET not in str(told.value)


def test_the_same_items_run_again_write_the_same_objects(transient, cutter):
    manifest = manifest_of([PHOTO], transient)
    process_shard(transient, cutter, manifest, [1], lambda: NOW)
    before = sorted((each.key, each.size) for each in transient.objects.walk(""))
    process_shard(transient, cutter, manifest, [1], lambda: NOW)
    assert sorted((each.key, each.size) for each in transient.objects.walk("")) == before


def test_another_photo_of_the_batch_can_lie_behind_the_subjects(transient, cutter):
    behind = CutoutOptions(bg_image=f"{SECRET}/2.jpg")
    manifest = manifest_of([PHOTO, PHOTOS[0].read_bytes()], transient)
    stamp = manifest.stamp.model_copy(update={"options": behind})
    (done,) = process_shard(transient, cutter, manifest.model_copy(update={"stamp": stamp}), [1], lambda: NOW).results
    file = transient.read(cutout_key(stamp.batch_id, 1, ".png"))
    assert done.outcome == "done"
    assert cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED).shape[2] == 3


def test_a_background_is_read_and_decoded_once_for_the_photos_that_lie_on_it(transient, cutter, monkeypatch):
    manifest = manifest_of([PHOTO, PHOTO, PHOTO, PHOTOS[0].read_bytes()], transient)
    stamp = manifest.stamp.model_copy(update={"options": CutoutOptions(bg_image=f"{SECRET}/4.jpg")})
    manifest = manifest.model_copy(update={"stamp": stamp})
    read, source = [], transient.source
    monkeypatch.setattr(transient, "source", lambda stamp, item: read.append(item.number) or source(stamp, item))
    report = process_shard(transient, cutter, manifest, [1, 2, 3], lambda: NOW)
    assert [each.outcome for each in report.results] == ["done"] * 3
    assert sorted(read) == [1, 2, 3, 4]


def test_of_backgrounds_that_change_with_every_photo_no_more_are_held_than_are_being_written(
    transient, cutter, monkeypatch
):
    manifest = manifest_of([PHOTO] * 4, transient)
    walls = [CutoutOptions(bg_image=f"{SECRET}/{number}.jpg") for number in (1, 2)]
    items = [item.model_copy(update={"options": walls[item.number % 2]}) for item in manifest.items]
    monkeypatch.setattr(cutter, "pace", Pace(readers=0, writers=0, batch=4))
    held, most, backdrop = WeakSet(), [], cutter.backdrop

    class Wall(np.ndarray):
        """Equal to none but itself, so that a set can hold it."""

        __hash__ = object.__hash__

    def counted(source: bytes) -> Wall:
        wall = backdrop(source).view(Wall)
        held.add(wall)
        most.append(len(held))
        return wall

    monkeypatch.setattr(cutter, "backdrop", counted)
    report = process_shard(transient, cutter, manifest.model_copy(update={"items": items}), range(1, 5), lambda: NOW)
    assert [each.outcome for each in report.results] == ["done"] * 4
    assert max(most) <= 2, "the last one's, and the next one's"


@pytest.mark.parametrize("wall", [PHOTO[: len(PHOTO) // 2], b"", b"a letter" * 99, 3_000_000, None])
def test_a_background_that_cannot_be_used_is_read_once_and_is_not_told_as_a_fault_of_the_photos_that_lie_on_it(
    transient, cutter, monkeypatch, wall
):
    manifest = manifest_of([PHOTO, PHOTO, wall], transient)
    stamp = manifest.stamp.model_copy(update={"options": CutoutOptions(bg_image=f"{SECRET}/3.jpg")})
    read, source = [], transient.source
    monkeypatch.setattr(transient, "source", lambda stamp, item: read.append(item.number) or source(stamp, item))
    report = process_shard(transient, cutter, manifest.model_copy(update={"stamp": stamp}), [1, 2], lambda: NOW)
    assert [each.code for each in report.results] == ["background_unusable"] * 2
    assert all(each.sentence.startswith("The photo that bg_image names cannot be used. ") for each in report.results)
    assert sorted(read) == [1, 2] if isinstance(wall, int) else [1, 2, 3]


def test_a_background_that_cannot_be_used_spoils_no_other(transient, cutter, monkeypatch):
    monkeypatch.setattr(cutter, "pace", Pace(readers=0, writers=0, batch=4))
    manifest = manifest_of([PHOTO, PHOTO, b"no image", PHOTO], transient)
    walls = [CutoutOptions(bg_image=f"{SECRET}/{number}.jpg") for number in (3, 4)]
    items = [item.model_copy(update={"options": wall}) for item, wall in zip(manifest.items, walls, strict=False)]
    items += manifest.items[2:]
    report = process_shard(transient, cutter, manifest.model_copy(update={"items": items}), [1, 2], lambda: NOW)
    assert [getattr(each, "code", "done") for each in report.results] == ["background_unusable", "done"]


@pytest.mark.parametrize(
    ("ours", "code"), [(OutOfMemory(), "out_of_memory"), (MemoryError(), "out_of_memory"), (OSError(), "item_failed")]
)
def test_what_is_our_fault_with_a_background_stays_so(transient, cutter, monkeypatch, ours, code):
    manifest = manifest_of([PHOTO, PHOTO], transient)
    stamp = manifest.stamp.model_copy(update={"options": CutoutOptions(bg_image=f"{SECRET}/2.jpg")})

    def fails(_: bytes) -> None:
        raise ours

    monkeypatch.setattr(cutter, "backdrop", fails)
    (failed,) = process_shard(transient, cutter, manifest.model_copy(update={"stamp": stamp}), [1], lambda: NOW).results
    assert failed.code == code


def test_a_store_that_refuses_a_background_fails_the_call_which_is_made_again(transient, cutter, monkeypatch):
    manifest = manifest_of([PHOTO, PHOTO], transient)
    stamp = manifest.stamp.model_copy(update={"options": CutoutOptions(bg_image=f"{SECRET}/2.jpg")})
    source = transient.source

    def refuses(stamp: Stamp, item: Item) -> bytes:
        if item.number == 2:
            raise StoreFault("The store refused to read.")
        return source(stamp, item)

    monkeypatch.setattr(transient, "source", refuses)
    with pytest.raises(StoreFault):
        process_shard(transient, cutter, manifest.model_copy(update={"stamp": stamp}), [1], lambda: NOW)


def test_a_background_that_is_not_in_the_batch_is_said_to_be_missing(transient, cutter):
    manifest = manifest_of([PHOTO], transient)
    stamp = manifest.stamp.model_copy(update={"options": CutoutOptions(bg_image="absent.jpg")})
    (failed,) = process_shard(transient, cutter, manifest.model_copy(update={"stamp": stamp}), [1], lambda: NOW).results
    assert failed.code == "background_unusable"
    assert "bg_image names cannot be used. It is not in the batch." in failed.sentence


def test_past_the_deadline_nothing_is_written(transient, cutter):
    manifest = manifest_of([PHOTO], transient)
    late = TransientStore(transient.objects, lambda: manifest.stamp.purge_at)
    with pytest.raises(PastDeadline):
        process_shard(late, cutter, manifest, [1], lambda: NOW)
    assert not transient.objects.exists(cutout_key(manifest.stamp.batch_id, 1, ".png"))


def test_an_unforeseen_fault_costs_its_item_and_logs_no_customers_word(transient, cutter, monkeypatch, caplog):
    manifest = manifest_of([PHOTO, PHOTO], transient)

    def fails(*_, **__):
        raise RuntimeError(f"cannot open {SECRET}")

    monkeypatch.setattr(cutter, "finish", fails)
    with caplog.at_level(logging.DEBUG):
        report = process_shard(transient, cutter, manifest, [1, 2], lambda: NOW)
    assert [each.code for each in report.results] == ["item_failed", "item_failed"]
    assert "item 2: RuntimeError at shard.py:" in caplog.text
    assert SECRET not in caplog.text + report.model_dump_json()


@pytest.mark.parametrize(("fault", "code"), [(RuntimeError(), "item_failed"), (OutOfMemory(), "out_of_memory")])
def test_photos_are_segmented_together_and_when_that_fails_one_by_one_so_that_the_culprit_alone_is_lost(
    transient, cutter, monkeypatch, fault, code
):
    culprit = PHOTOS[2].read_bytes()
    manifest = manifest_of([PHOTO, b"no image", culprit, PHOTO], transient)
    segment, asked, bad = cutter.segment, [], []

    def counted(photos):
        asked.append(len(photos))
        if any(photo.order.source in bad for photo in photos):
            raise fault
        return segment(photos)

    monkeypatch.setattr(cutter, "pace", Pace(readers=0, writers=0, batch=4))
    monkeypatch.setattr(cutter, "segment", counted)
    process_shard(transient, cutter, manifest, range(1, 5), lambda: NOW)
    assert asked == [3]
    asked.clear()
    bad.append(culprit)
    results = process_shard(transient, cutter, manifest, range(1, 5), lambda: NOW).results
    assert [each.outcome if each.outcome == "done" else each.code for each in results] == [
        "done",
        "not_an_image",
        code,
        "done",
    ]
    assert asked == [3, 1, 1, 1]


def test_a_device_that_is_broken_ends_the_call_and_is_asked_no_more(transient, cutter, monkeypatch):
    asked = []

    def broken(photos):
        asked.append(len(photos))
        raise DeviceBroken("The device does not calculate any more in this process.")

    monkeypatch.setattr(cutter, "pace", Pace(readers=0, writers=0, batch=4))
    monkeypatch.setattr(cutter, "segment", broken)
    with pytest.raises(DeviceBroken):
        process_shard(transient, cutter, manifest_of([PHOTO, PHOTO], transient), [1, 2], lambda: NOW)
    assert asked == [2]


def test_memory_that_is_not_enough_is_a_result(transient, cutter, monkeypatch):
    manifest = manifest_of([PHOTO], transient)
    monkeypatch.setattr(cutter, "open", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    (failed,) = process_shard(transient, cutter, manifest, [1], lambda: NOW).results
    assert failed.code == "out_of_memory"


def consistent(manifest: Manifest) -> Manifest:
    stamp = manifest.stamp.model_copy(update={"options": CutoutOptions(consistent=True)})
    return manifest.model_copy(update={"stamp": stamp})


def test_photos_of_a_folder_are_set_alike_whichever_shard_cuts_them_and_when(transient, cutter):
    sources = [photo.read_bytes() for photo in PHOTOS[1:4]]
    manifest = consistent(manifest_of([*sources, b"no image"], transient))
    batch_id = manifest.stamp.batch_id
    measured = [process_shard(transient, cutter, manifest, shard, lambda: NOW) for shard in ([1, 2], [3, 4])]
    assert [each.code for report in measured for each in report.results] == ["not_an_image"]
    assert not transient.objects.exists(cutout_key(batch_id, 1, ".png"))
    assert unmeasured(transient, manifest, [(1, 2), (3, 4)]) == [(4,)]
    set_alike(transient, manifest)
    whole = process_shard(transient, cutter, manifest, [1, 2, 3], lambda: NOW).results
    files = [transient.read(cutout_key(batch_id, number, ".png")) for number in (1, 2, 3)]
    sizes = {(each.width, each.height) for each in whole if "not_consistent" not in each.flags}
    assert len(sizes) == 1
    for number in (3, 1, 2):  # again, each alone, and with no mask kept
        transient.objects.delete([coarse_mask_key(batch_id, number)])
        process_shard(transient, cutter, manifest, [number], lambda: NOW)
        assert transient.read(cutout_key(batch_id, number, ".png")) == files[number - 1]


def test_one_photo_that_is_to_be_consistent_has_all_of_its_shard_measured_first(transient, cutter):
    manifest = manifest_of([PHOTOS[2].read_bytes()] * 2, transient)
    one = manifest.items[0].model_copy(update={"options": CutoutOptions(consistent=True)})
    manifest = Manifest(stamp=manifest.stamp, items=(one, manifest.items[1]))
    assert process_shard(transient, cutter, manifest, [1, 2], lambda: NOW).results == ()
    set_alike(transient, manifest)
    done = process_shard(transient, cutter, manifest, [1, 2], lambda: NOW).results
    assert [(each.outcome, "not_consistent" in each.flags) for each in done] == [("done", False)] * 2
    assert done[0].width != done[1].width, "the other is as it was taken"


def test_the_network_is_asked_once_for_a_photo_that_is_to_be_consistent(transient, cutter):
    manifest = consistent(manifest_of([PHOTO, PHOTOS[2].read_bytes()], transient))
    asked = []
    hook = cutter.segmenter.module.register_forward_hook(lambda *call: asked.append(len(call[1][0])))
    try:
        process_shard(transient, cutter, manifest, [1, 2], lambda: NOW)
        set_alike(transient, manifest)
        process_shard(transient, cutter, manifest, [1, 2], lambda: NOW)
    finally:
        hook.remove()
    assert sum(asked) == 2


def test_a_photo_in_place_that_was_replaced_since_it_was_measured_is_cut_by_its_own_mask(transient, cutter):
    there = {"file:///a/1.jpg": PHOTO}
    here = TransientStore(transient.objects, lambda: NOW, there.__getitem__)
    manifest = consistent(manifest_of([1], here, GRANT))
    item = manifest.items[0].model_copy(update={"source": "file:///a/1.jpg"})
    manifest = Manifest(stamp=manifest.stamp, items=(item,))
    process_shard(here, cutter, manifest, [1], lambda: NOW)
    set_alike(here, manifest)
    there["file:///a/1.jpg"] = new = PHOTOS[2].read_bytes()
    (done,) = process_shard(here, cutter, manifest, [1], lambda: NOW).results
    assert done.source_sha256 == hashlib.sha256(new).hexdigest()
    usual = cutter.cut(new, CutoutOptions(), want_mask=True)
    assert here.read(mask_key(manifest.stamp.batch_id, 1)) == usual.mask_png


@pytest.mark.parametrize(
    ("source", "grant", "is_told"),
    [("file:///a/1.jpg", GRANT, True), ("file:///a/1.jpg", None, False), ("", GRANT, False)],
)
def test_a_photos_hash_is_told_only_where_it_stays_in_place_and_may_be_learnt_from(
    transient, cutter, source, grant, is_told
):
    here = TransientStore(transient.objects, lambda: NOW, {source: PHOTO}.__getitem__)
    manifest = manifest_of([PHOTO], here, grant)
    manifest = Manifest(stamp=manifest.stamp, items=(manifest.items[0].model_copy(update={"source": source}),))
    (done,) = process_shard(here, cutter, manifest, [1], lambda: NOW).results
    assert done.source_sha256 == (hashlib.sha256(PHOTO).hexdigest() if is_told else None)
    (name,) = here.report_names(manifest.stamp.batch_id)
    report = here.read(f"{batch_prefix(manifest.stamp.batch_id)}/report/{name}")
    assert (b"source_sha256" in report) is is_told, "older versions read a report that tells none"


def test_what_cannot_be_measured_for_a_reason_of_ours_costs_its_own_result(transient, cutter, monkeypatch):
    manifest = consistent(manifest_of([PHOTO, PHOTO], transient))
    measure, calls = cutter.measure, []

    def fails_once(done):
        calls.append(done)
        if len(calls) == 1:
            raise RuntimeError
        return measure(done)

    monkeypatch.setattr(cutter, "measure", fails_once)
    (failed,) = process_shard(transient, cutter, manifest, [1, 2], lambda: NOW).results
    assert (failed.number, failed.code) == (1, "item_failed")
    set_alike(transient, manifest)
    (done,) = process_shard(transient, cutter, manifest, [2], lambda: NOW).results
    assert done.outcome == "done"
