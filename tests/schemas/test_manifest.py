"""A manifest read back item by item says what was sealed, and a million items do not fill the memory."""

from __future__ import annotations

import json
import os
import tracemalloc
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.batch import Item, Manifest, Stamp
from schemas.ids import new_batch_id, received_at
from schemas.naming import delivery_paths, names_of, renamed
from schemas.options import CutoutOptions, Format
from schemas.results import Done, Failed, Scores, ShardReport, results_by_number, standing

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
_NAMES = st.text(st.sampled_from('aä"\n{}[]:,1 nuberpth'), min_size=1, max_size=30)


def stamp() -> Stamp:
    batch_id = new_batch_id(NOW, os.urandom)
    options = CutoutOptions(format=Format.JPG)
    received = received_at(batch_id)
    purge_at = received + timedelta(hours=23)
    return Stamp(
        batch_id=batch_id, received_at=received, purge_at=purge_at, industry=None, grant_id=None, options=options
    )


@given(st.lists(st.tuples(_NAMES, st.booleans()), min_size=1, max_size=6))
def test_what_was_sealed_is_read_back_whatever_the_names_are(names: list[tuple[str, bool]]) -> None:
    items = tuple(
        Item(number=n, path=f"a{name}", size=n, options=CutoutOptions() if has_options else None)
        for n, (name, has_options) in enumerate(names, start=1)
    )
    sealed = Manifest(stamp=stamp(), items=items)
    read = Manifest.from_json(sealed.model_dump_json().encode())
    assert read.stamp == sealed.stamp
    assert (len(read.items), tuple(read.items), read.items[-1]) == (len(items), items, items[-1])
    assert read.items[:2] == items[:2]
    assert sealed.paths == read.paths == [item.path for item in items]
    assert names_of(sealed) == names_of(read) == delivery_paths(items, ".jpg")
    for manifest in (sealed, read):
        firsts = {item.path: item for item in reversed(items)}
        assert all(manifest.item_at(path) == item for path, item in firsts.items())
        assert manifest.item_at("a") is manifest.item_at("nowhere") is None


_CLASHING = st.sampled_from(("a", "A.JPG", "a.jpg", "a.jpg/b.jpg", "a.png", "a.png/b", "a?.jpg", "a_.png", 252 * "a"))


@given(st.sets(_CLASHING), st.randoms())
def test_whose_cutout_is_called_like_their_photo_is_called_so_among_any_others(paths: set[str], random: Random) -> None:
    items = tuple(Item(number=number, path=path, size=1) for number, path in enumerate(sorted(paths), start=1))
    manifest = Manifest(stamp=stamp(), items=items)
    names = names_of(manifest)
    those = [item for item, is_other in zip(items, renamed(manifest, names), strict=True) if not is_other]
    some = random.sample(those, random.randint(0, len(those)))
    assert delivery_paths(some, ".jpg") == {item.number: names[item.number] for item in some}


@pytest.mark.parametrize(("of_all", "of_one"), [(False, False), (True, False), (False, True)])
def test_photos_that_are_to_be_consistent_are_known_before_and_after_the_seal(of_all: bool, of_one: bool) -> None:
    usual, alike = CutoutOptions(), CutoutOptions(consistent=True)
    one = Item(number=2, path='"consistent":true', size=1, options=alike if of_one else usual)
    stamped = stamp().model_copy(update={"options": alike if of_all else usual})
    manifest = Manifest(stamp=stamped, items=(Item(number=1, path="a", size=1), one))
    read = Manifest.from_json(manifest.model_dump_json().encode())
    assert manifest.wants_consistency == read.wants_consistency == (of_all or of_one)


def test_a_manifest_that_others_wrote_is_checked_as_a_whole() -> None:
    sealed = Manifest(stamp=stamp(), items=(Item(number=1, path="a.jpg", size=1),))
    spaced = json.dumps(json.loads(sealed.model_dump_json()), indent=1)
    assert Manifest.from_json(spaced.encode()).items == list(sealed.items)
    with pytest.raises(ValidationError):
        Manifest.from_json(spaced.replace('"number": 1', '"number": 2').encode())


def test_what_does_not_fit_is_not_quoted() -> None:
    """Engines and logs keep what errors say."""
    with pytest.raises(ValidationError) as told:
        Item.model_validate_json('{"number": 1, "path": ["grandmothers-portrait.jpg"], "size": 1}')
    assert "portrait" not in str(told.value)


def test_an_item_out_of_place_or_outside_its_folder_is_refused_when_it_is_read() -> None:
    text = Manifest(stamp=stamp(), items=(Item(number=1, path="a.jpg", size=1),)).model_dump_json()
    for wrong in (text.replace('"number":1', '"number":2'), text.replace("a.jpg", "../a.jpg")):
        with pytest.raises(ValueError, match=r"numbered|inside"):
            Manifest.from_json(wrong.encode()).items[0]


def test_no_stamp_promises_more_than_24_hours_from_the_time_in_its_batch_id() -> None:
    right = stamp()
    day = timedelta(hours=24)

    def changed(**to: object) -> Stamp:
        return Stamp.model_validate(right.model_dump() | to)

    assert changed(purge_at=right.received_at + day).purge_at == right.received_at + day
    for purge_at in (right.received_at, right.received_at + day + timedelta(microseconds=1)):
        with pytest.raises(ValidationError, match="within 24 hours"):
            changed(purge_at=purge_at)
    with pytest.raises(ValidationError, match="time inside"):
        changed(received_at=right.received_at + timedelta(milliseconds=1))
    with pytest.raises(ValidationError, match="UUIDv7"):
        changed(batch_id=f"urn:uuid:{right.batch_id}")


def test_each_item_costs_little_more_than_its_bytes() -> None:
    sealed = Manifest(stamp=stamp(), items=tuple(Item(number=n, path=f"{n}.jpg", size=9) for n in range(1, 20_001)))
    data = sealed.model_dump_json().encode()
    tracemalloc.start()
    read = Manifest.from_json(data)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(read.items) == 20_000
    assert held < 20 * 20_000


def test_how_far_a_batch_is_follows_the_rule_of_its_results() -> None:
    scores = Scores(coverage=0, edge_uncertainty=0, pieces=0, cut_by_frame=0, sharpness=0, exposure=0)
    sizes = {"width": 1, "height": 1, "bytes": 1, "source_width": 1, "source_height": 1}
    facts = {"scores": scores, "network": "n", "weights_sha256": "0" * 64, "device": "cpu"}

    def done(number: int) -> Done:
        return Done(number=number, finished_at=NOW, **sizes, **facts)

    def failed(number: int, code: str, minutes: int) -> Failed:
        return Failed(number=number, code=code, sentence="", finished_at=NOW + timedelta(minutes=minutes))

    told = [failed(1, "early", 0), failed(1, "late", 5), failed(1, "early", 1), failed(2, "x", 0), done(2), done(3)]
    reports = [ShardReport(first=each.number, last=each.number, results=(each,)) for each in (*told, failed(3, "y", 9))]
    found, whole = standing(reports), results_by_number(reports)
    assert found.done == {n for n, each in whole.items() if isinstance(each, Done)} == {2, 3}
    assert found.failed == {n: each for n, each in whole.items() if isinstance(each, Failed)}
    assert found.failed[1].code == "late"
