"""What a night does of a place: what is new or changed in it, each once, and nothing else."""

from __future__ import annotations

import pytest

from flows.nights.changes import Changes, compare
from schemas.left_out import LeftOut
from store.outside.listing import OutsideFile

KEY = "ab" * 32


def look(*lying: OutsideFile, before: Changes | None = None, suffix: str = ".png") -> Changes:
    """`before`: a look after which all was done."""
    done = {} if before is None else {photo.path_hmac: photo.content_hmac for photo in before.todo}
    return compare(lying, KEY, done, suffix)


def todo(changes: Changes) -> list[tuple[str, str]]:
    return [(photo.path, photo.name) for photo in changes.todo]


A, B, C, D = (OutsideFile(f"{name}.jpg", 5, "1") for name in "abcd")


def test_a_photo_is_done_again_only_when_its_size_its_version_or_its_cutouts_name_is_another() -> None:
    first = look(D, C, B, A)
    assert todo(first) == [(f"{name}.jpg", f"{name}.png") for name in "abcd"], "in order of the paths"
    longer, newer, added = OutsideFile("d.jpg", 6, "1"), OutsideFile("b.jpg", 5, "2"), OutsideFile("c2.jpg", 5, "1")
    second = look(longer, added, newer, A, before=first)
    assert [each[0] for each in todo(second)] == ["b.jpg", "c2.jpg", "d.jpg"]
    assert ([each.path for each in second.new], second.skipped, second.found) == (["c2.jpg"], 1, 4)
    assert second.deleted == {each.path_hmac for each in first.todo if each.path == "c.jpg"}
    assert todo(look(A, B, C, D, before=first)) == []
    as_webp = look(A, B, C, D, before=first, suffix=".webp")
    assert todo(as_webp)[0] == ("a.jpg", "a.webp")
    assert (len(as_webp.changed), as_webp.deleted) == (4, set())


def test_a_photo_that_comes_later_gives_both_their_whole_names_though_one_was_done() -> None:
    assert todo(look(A, OutsideFile("a.heic", 7, "1"), B, before=look(A, B))) == [
        ("a.heic", "a.heic.png"),
        ("a.jpg", "a.jpg.png"),
    ]


def test_in_whatever_order_a_place_is_listed_its_cutouts_are_called_the_same() -> None:
    quiet, loud = OutsideFile("a.jpg", 5, "1"), OutsideFile("A.JPG", 5, "1")
    first = look(quiet, loud)
    assert todo(first) == [("A.JPG", "A.JPG.9b37d5fd.png"), ("a.jpg", "a.jpg.509b0d46.png")], (
        "a disk may take both for one"
    )
    assert todo(look(loud, quiet, before=first)) == []


def test_cutouts_of_photos_that_a_disk_may_take_for_one_keep_their_names_when_others_come_and_go() -> None:
    quiet, loud, first_of_all = (OutsideFile(path, 5, "1") for path in ("a.jpg", "A.JPG", "0.jpg"))
    first = look(quiet, loud)
    second = look(first_of_all, quiet, loud, before=first)
    assert todo(second) == [("0.jpg", "0.png")], "they are not cut again for a photo that is listed before them"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a.jpg.txt", LeftOut.NOT_A_PHOTO),
        ("jpg", LeftOut.NOT_A_PHOTO),
        ("bad\nname.txt", LeftOut.NOT_A_PHOTO),
        ("bad\nname.jpg", LeftOut.BAD_NAME),
        ("../outside.jpg", LeftOut.BAD_NAME),
        ("LOUD.JPG", None),
    ],
)
def test_what_is_no_photo_or_cannot_be_named_is_counted_by_reason_and_the_rest_is_done(
    path: str, why: LeftOut | None
) -> None:
    changes = look(OutsideFile(path, 5, "1"), OutsideFile(path, 5, "1"), A)
    assert changes.left_out == ({why: 2} if why else {})
    assert [each[0] for each in todo(changes)] == (["a.jpg"] if why else ["LOUD.JPG", "a.jpg"])
