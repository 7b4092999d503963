"""What has come of a photo in a store of each kind; how programs send them is in tests/api."""

from __future__ import annotations

import pytest

from schemas.errors import WrongState
from store.objects.object_store import ObjectStore
from store.transient.transient_store import TransientStore
from store.transient.uploads import Announced, Uploads, token_of
from tests.store.conftest import NOON, stamp

TOKEN = token_of("ab" * 32, "a.jpg")


def a_photo_that_was_replaced(objects: ObjectStore) -> Uploads:
    """By a larger one of the same path. A bucket with versions still holds the first."""
    uploads = Uploads(TransientStore(objects, lambda: NOON), stamp(), 1_000_000)
    for data in (b"one", b"three"):
        uploads.put(TOKEN, Announced(path="a.jpg", size=len(data)), data)
    return uploads


def test_a_photo_that_was_replaced_by_one_of_another_size_is_complete(objects: ObjectStore) -> None:
    uploads = a_photo_that_was_replaced(objects)
    assert [stands for _, _, stands in uploads.standing("", 10)] == [5]
    assert [item.size for item in uploads.items()] == [5]


def test_a_photo_that_was_announced_anew_is_not_complete_by_what_lay_there_before(objects: ObjectStore) -> None:
    uploads = a_photo_that_was_replaced(objects)
    uploads.announce(TOKEN, Announced(path="a.jpg", size=3))
    assert uploads.offset(TOKEN) == 0
    with pytest.raises(WrongState):
        uploads.items()
