"""Small pictures are made by a process apart: with no secret in it, able to open nothing, and no loss when it dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.web.drawing import Drawer
from schemas.options import Format
from tests.api.conftest import jpeg
from workers.decode import Limits

LIMITS = Limits(pixels=1_000_000, bytes=1_000_000)


@pytest.fixture
def drawer() -> Iterator[Drawer]:
    drawer = Drawer()
    yield drawer
    if drawer._process is not None:
        drawer._end(drawer._process)


def pid_of(drawer: Drawer) -> int:
    assert drawer._process is not None
    return drawer._process.pid


def test_a_picture_comes_back_and_what_is_none_costs_nothing(drawer: Drawer) -> None:
    made = drawer.draw("photo", Format.PNG, jpeg(), LIMITS)
    assert made is not None
    assert made[8:12] == b"WEBP"
    first = pid_of(drawer)
    assert drawer.draw("photo", Format.PNG, b"no photo", LIMITS) is None
    assert drawer.draw("photo", Format.PNG, jpeg(), Limits(pixels=10, bytes=1_000_000)) is None
    assert drawer.draw("cutout", Format.ZIP, b"no zip", LIMITS) is None
    assert drawer.draw("photo", Format.PNG, jpeg(), LIMITS) == made
    assert first == pid_of(drawer)


def test_the_process_has_no_environment_and_can_open_nothing_more(
    drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGBATCH_SMTP_URL", "smtp://user:secret@host")
    assert drawer.draw("photo", Format.PNG, jpeg(), LIMITS) is not None
    there = Path(f"/proc/{pid_of(drawer)}")
    assert (there / "environ").read_bytes() == b""
    limit = next(line for line in (there / "limits").read_text().splitlines() if line.startswith("Max open files"))
    assert limit.split()[3:5] == ["3", "3"]
    assert {each.name for each in (there / "fd").iterdir()} == {"0", "1", "2"}


def test_when_the_process_dies_the_next_picture_is_made_by_another(drawer: Drawer) -> None:
    assert drawer.draw("photo", Format.PNG, jpeg(), LIMITS) is not None
    first = pid_of(drawer)
    os.kill(first, 9)
    assert drawer.draw("photo", Format.PNG, jpeg(), LIMITS) is None
    assert drawer.draw("photo", Format.PNG, jpeg(), LIMITS) is not None
    assert pid_of(drawer) != first
