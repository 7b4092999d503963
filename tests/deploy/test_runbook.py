"""Every command that the runbook tells somebody to type at night exists, and so does every file and code it names."""

from __future__ import annotations

import re

import schemas.errors
from schemas.errors import BgbatchError
from store.settings import Settings
from tests.deploy.files import ROOT, called, manifests

TEXT = (ROOT / "docs" / "runbook.md").read_text()


def codes(kind: type[BgbatchError] = BgbatchError) -> set[str]:
    return {kind.code}.union(*(codes(each) for each in kind.__subclasses__()))


def test_every_command_exists(commands: set[str]) -> None:
    typed = re.findall(r"\bbgbatch ([a-z][a-z-]*)(?: ([a-z]+))?", "\n".join(re.findall(r"`([^`\n]+)`", TEXT)))
    assert len(typed) > 10
    for name, verb in typed:
        if name not in ("exec", "scale", "get"):  # -n bgbatch, kubectl's name space
            assert name in commands
            assert not verb or f"{name} {verb}" in commands or name == "receipts"


def test_every_file_of_ours_exists() -> None:
    files = re.findall(r"\b(?:deploy|docs|scripts)/[\w./-]+\.\w+|\bdeploy/\w+/base\b", TEXT)
    assert files
    assert all((ROOT / each).exists() for each in files)


def test_every_code_is_one_that_can_happen() -> None:
    assert schemas.errors
    found = set(re.findall(r"`([a-z]+_[a-z]+)`", TEXT)) - {"partially_completed"}
    assert found <= codes() | {"records_fault"}
    assert {"version_skew", "workers_lost", "device_absent", "ledger_broken"} <= found


def test_what_it_scales_and_looks_at_is_there() -> None:
    for name in re.findall(r"\bdeploy/([a-z]+)\b(?= --| -- )", TEXT):
        assert called("Deployment", name)
    labels = {each["metadata"].get("labels", {}).get("app") for each in manifests()}
    assert set(re.findall(r"-l app=(\w+)", TEXT)) <= labels
    assert {name.lower() for name in re.findall(r"BGBATCH_([A-Z_]+)", TEXT)} <= set(Settings.model_fields)
