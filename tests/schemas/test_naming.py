"""No cutout is lost to another one's name."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Item, can_be_kept
from schemas.naming import delivery_paths, lasting_paths


def _items(*paths: str) -> list[Item]:
    return [Item(number=number, path=path, size=1) for number, path in enumerate(paths, start=1)]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["VIN1/1.jpg", "VIN2/1.jpg"], ["VIN1/1.png", "VIN2/1.png"]),
        (["a.jpg", "a.heic"], ["a.jpg.png", "a.heic.png"]),
        (["a.jpg", "A.JPG"], ["a.jpg.1.png", "A.JPG.2.png"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg.1.png", "a.png.png", "a.jpg.png"]),
        (["a.jpg", "a.png/1.jpg"], ["a.jpg.png", "a.png/1.png"]),
        (["a", "a.jpg"], ["a.png", "a.jpg.png"]),
        (["VIN1/1.jpg", "VIN1. /1.jpg"], ["VIN1/1.jpg.1.png", "VIN1. /1.jpg.2.png"]),
        (["1.jpg", ".../1.jpg"], ["1.jpg.1.png", ".../1.jpg.2.png"]),
        (["a:b.jpg", "a_b.jpg", "a?c.jpg"], ["a:b.jpg.1.png", "a_b.jpg.2.png", "a?c.png"]),
        (["no_suffix", "two.dots.jpg"], ["no_suffix.png", "two.dots.png"]),
        ([".jpg", "a/.jpg", "dot."], [".jpg.png", "a/.jpg.png", "dot..png"]),
    ],
)
def test_names_on_delivery(paths: list[str], expected: list[str]) -> None:
    assert list(delivery_paths(_items(*paths), ".png").values()) == expected


@pytest.mark.parametrize("letter", ["x", "ä", "車"])
def test_a_photo_with_the_longest_name_gives_its_cutout_one_that_a_disk_holds_too(letter: str) -> None:
    stems = [251 * "x", (251 // len(letter.encode()) - 2) * letter]
    paths = [f"VIN1/{stem}.{kind}" for stem in stems for kind in ("jpg", "JPG", "png")]
    assert all(map(can_be_kept, paths))
    names = list(delivery_paths(_items(*paths, f"VIN2/{stems[0]}.jpg"), ".webp").values())
    assert all(map(can_be_kept, names))
    assert len(set(map(str.casefold, names))) == len(names)
    assert all(name.startswith("VIN1/" + 50 * path[5]) for path, name in zip(paths, names, strict=False))


_part = st.sampled_from(
    ["a", "A", "b", "a.jpg", "A.JPG", "a.png", "a.jpg.png", "é", "e\u0301", "1", "a.jpg.1", "ß", "ss"]
)
_path = st.lists(_part, min_size=1, max_size=2).map("/".join)


@given(st.lists(_path, min_size=1, max_size=12, unique=True))
def test_every_item_has_its_own_name_in_its_own_folder(paths: list[str]) -> None:
    items = _items(*paths)
    names = delivery_paths(items, ".png")
    assert len({name.casefold() for name in names.values()}) == len(items)
    assert len({name.casefold() for name in lasting_paths(paths, ".png").values()}) == len(items)
    folders = {str(folder).casefold() for name in names.values() for folder in PurePosixPath(name).parents}
    assert not folders & {name.casefold() for name in names.values()}
    for item in items:
        assert names[item.number].rpartition("/")[0] == item.path.rpartition("/")[0]
        assert names[item.number].endswith(".png")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x.jpg", "a/../b.jpg", "", "a//b.jpg", "a\\b.jpg", "a\0b", "./a.jpg"]
)
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="stay inside"):
        Item(number=1, path=path, size=1)


@pytest.mark.parametrize(
    ("kept", "refused"),
    [
        ("a/" + "ä" * 127 + "b", "a/" + "ä" * 128),
        ("a/" * 511 + "bc", "a/" * 511 + "äc"),
        ("a b.jpg", "a\x1fb.jpg"),
        ("a~.jpg", "a\x7f.jpg"),
        ("a\xa0b.jpg", "a\x9fb.jpg"),
        ("a/b.jpg", "/a/b.jpg"),
    ],
)
def test_a_photo_may_be_called_what_disks_and_buckets_hold_in_bytes_and_a_terminal_shows(
    kept: str, refused: str
) -> None:
    assert can_be_kept(kept)
    assert not can_be_kept(refused)
