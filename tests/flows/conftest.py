"""A home with real stores, an account, and batches of real photos; Ray runs once for the whole module that asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.parts import Parts, open_parts
from portal.demo.people import PHOTOS
from portal.intake import find_photos, stamp_batch, upload
from schemas.batch import Stamp
from schemas.clock import system_clock
from schemas.ids import AccountId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.people import create_account
from store.settings import Settings


def photo(name: str = "chelsea") -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


@dataclass(frozen=True)
class Place:
    """Where a test works."""

    parts: Parts
    account_id: AccountId
    folder: Path

    def send(
        self, files: dict[str, bytes], industry: Industry | None = None, options: CutoutOptions | None = None
    ) -> Stamp:
        """Submit a folder of these files as one batch."""
        folder = self.folder / os.urandom(4).hex()
        for path, data in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        stamp = stamp_batch(self.parts, self.account_id, industry, options or CutoutOptions())
        upload(self.parts, stamp, find_photos(folder).photos, on_item=lambda: None)
        return stamp


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    parts = open_parts(Settings(home=tmp_path / "home", actors=2, shard_items=2), system_clock)
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    yield Place(parts, account_id, tmp_path / "photos")
    parts.records.engine.dispose()
