"""A small crowd at a real portal; `python -m bench.load` plays the large one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from flows.parts import open_parts
from schemas.clock import system_clock
from tests.api.crowd import Crowd, count, have_ended
from tests.api.stand import portal, running
from tests.ports import free_port
from tests.records import at_home


def test_twenty_submitters_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    parts = open_parts(at_home(home), system_clock)
    crowd = Crowd(parts, submitters=20, batches=2, photos=10)
    few_at_once = {"BGBATCH_UPLOADS_AT_ONCE": "4"}
    work = "from tests.api.stand import work; work()"
    with portal(home, **few_at_once) as (address, _), running(home, work):
        asyncio.run(crowd.send(address))
        until = time.monotonic() + 600
        while not have_ended(parts, crowd.sent):
            assert time.monotonic() < until, home.with_suffix(".log").read_text()[-2000:]
            time.sleep(0.2)
    found = count(parts, crowd.sent)
    assert (found.batches, found.photos, found.results) == (40, 400, 400)
    assert crowd.told.statuses[429], "nobody was asked to wait, so waiting was not tried"
    assert crowd.told.broken_off
    assert crowd.told.asked_twice
    said = home.with_suffix(".log").read_text()
    assert "Traceback" not in said
    assert "VIN" not in said, "a customer's file name is in the log"
    parts.records.engine.dispose()


def test_a_portal_that_is_killed_in_the_middle_of_uploads_loses_and_doubles_nothing(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    parts = open_parts(at_home(home), system_clock)
    crowd = Crowd(parts, submitters=8, batches=2, photos=20)

    async def play() -> None:
        sending = asyncio.create_task(crowd.send(f"http://127.0.0.1:{port}"))
        for answers in (60, 160):
            with portal(home, port) as (_, process):
                while crowd.told.statuses.total() < answers:
                    await asyncio.sleep(0.01)
                process.kill()
        with portal(home, port):
            await sending

    asyncio.run(play())
    assert crowd.told.lost_connections
    found = count(parts, crowd.sent)
    assert (found.batches, found.photos) == (16, 320)
    parts.records.engine.dispose()


def test_the_count_finds_what_the_crowd_must_not_lose(tmp_path: Path) -> None:
    home = tmp_path / "home"
    parts = open_parts(at_home(home), system_clock)
    crowd, objects = Crowd(parts, submitters=1, batches=1, photos=3), parts.transient.objects
    with portal(home) as (address, _):
        asyncio.run(crowd.send(address))
    assert count(parts, crowd.sent).photos == 3
    key = next(each.key for each in objects.walk("") if "/source/" in each.key)

    objects.write(f"{key}0", b"the same photo, under another key")
    with pytest.raises(AssertionError, match="belong to no photo"):
        count(parts, crowd.sent)
    objects.delete([f"{key}0"])
    whole = objects.read(key)
    objects.write(key, b"other bytes")
    with pytest.raises(AssertionError, match="changed"):
        count(parts, crowd.sent)
    objects.write(key, whole)
    crowd.sent[0].photos["VIN0/never-came.jpg"] = "0" * 64
    with pytest.raises(AssertionError, match="lost"):
        count(parts, crowd.sent)
    parts.records.engine.dispose()
