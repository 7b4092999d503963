"""`make demo`, as a stranger runs it: the whole product in its own process, and nothing left at the end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from portal.cli.app import app
from tests.flows.test_command_line import BGBATCH


def test_the_demo_shows_the_promise_kept_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run([*BGBATCH, "demo", "--to", str(folder)], env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = " ".join(done.stdout.split())
    assert "The ML team pulled 3 automotive candidates" in said
    assert "A pull now gives 0 rows" in said
    assert "`bgbatch lake verify --erase` erased 3" in said
    assert "Cleanup purged 2 batches" in said
    assert "Objects left in the transient store: 0. Files left in the lake: 0." in said
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert len(set(sheet.convert("L").resize((64, 64)).get_flattened_data())) > 20, "there is something to see"
    cutouts = sorted(path.relative_to(folder / "cutouts").as_posix() for path in (folder / "cutouts").rglob("*.png"))
    assert len(cutouts) == 6
    for cutout in cutouts:
        with Image.open(folder / "cutouts" / cutout) as image:
            lowest, highest = image.getchannel("A").getextrema()
            assert (lowest, highest > 200) == (0, True), "background gone, subject there"
    left = [path for place in ("transient", "lake") for path in (folder / "home" / place).rglob("*") if path.is_file()]
    assert left == []


def test_a_demo_that_is_stopped_says_how_to_see_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_what: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("portal.cli.demo._play", stopped)
    done = CliRunner().invoke(app, ["demo", "--to", str(tmp_path / "demo")])
    assert (done.exit_code, done.stderr) == (130, "Stopped. Run the demo again: it begins anew.\n")
