"""What the command line finds wrong with a batch before it has sent a byte of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.parts import Parts, open_parts
from portal.cli.sending import send
from schemas.clock import system_clock
from schemas.errors import BadOptions
from schemas.options import CutoutOptions
from store.batches import list_batches
from store.outside import allow
from store.people import create_account
from store.settings import Settings
from tests.portal.test_intake import packed

ON_BRICK = CutoutOptions(bg_image="walls/brick.jpg")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(Settings(home=tmp_path / "home"), system_clock)
    yield parts
    parts.records.engine.dispose()


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """The same two photos in each way to send them; of the manifest's, the second has a background of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(name.encode())
    listed = tmp_path / "list.csv"
    listed.write_text("path,bg_image\nphotos/1.jpg,\nphotos/2.jpg,walls/brick.jpg\n")
    return {"folder": folder, "zip": packed(tmp_path, ("1.jpg", b"1"), ("2.jpg", b"2")), "manifest": listed}


@pytest.mark.parametrize("way", ["folder", "zip", "manifest", "place"])
def test_a_background_that_is_not_among_the_photos_is_told_before_anything_is_sent(
    parts: Parts, sources: dict[str, Path], way: str
) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
        allow(connection, account_id, sources["folder"].as_uri(), parts.clock())
    source = sources["folder"].as_uri() if way == "place" else str(sources[way])
    with pytest.raises(BadOptions, match="not in the batch") as refused:
        send(parts, source, account_id, None, CutoutOptions() if way == "manifest" else ON_BRICK)
    assert "brick" not in str(refused.value)
    with parts.records.reading() as connection:
        assert list_batches(connection) == []
    assert list(parts.transient.objects.walk("")) == []


def test_a_background_that_is_among_them_is_sent_with_them(parts: Parts, sources: dict[str, Path]) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    batch_id = send(parts, str(sources["folder"]), account_id, None, CutoutOptions(bg_image="2.jpg"))
    assert len(parts.transient.manifest(batch_id).items) == 2
