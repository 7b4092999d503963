"""The list of what is installed is whole, and the same when it is made again."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.deploy.files import ROOT


def listed() -> str:
    run = [sys.executable, str(ROOT / "scripts" / "sbom.py")]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def installed() -> set[str]:
    """Asked in a fresh process: Ray, once imported, shows packages of its own in this one."""
    ask = "from importlib.metadata import distributions as d; print(*{each.metadata['Name'] for each in d()})"
    return set(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.split())


def test_everything_installed_is_listed_with_its_version_once() -> None:
    bill = json.loads(listed())
    names = [each["name"] for each in bill["components"]]
    assert len(names) == len(set(names))
    assert {*names, "bgbatch"} == installed()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    versions = {each["name"]: each["version"] for each in bill["components"]}
    for name in ("ray", "prefect", "pyarrow", "fastapi"):
        assert versions[name] == pinned[name]


def test_two_lists_of_the_same_environment_are_the_same() -> None:
    assert listed() == listed()
