"""Places of a customer's own: what may be named, and that reading there changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import NotFound
from store.outside import open_outside
from store.settings import Settings


def test_reading_a_disk_that_is_away_makes_no_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_outside(Settings(home=tmp_path / "home"))(f"file://{tmp_path}/mnt/nas/VIN1/1.jpg")
    assert os.listdir(tmp_path) == []
