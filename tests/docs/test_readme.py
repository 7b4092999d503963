"""Pages are true as printed: commands exist with their options, links lead somewhere, targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from portal.cli.app import app
from store.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def console_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip()]


COMMANDS = [
    (page.name, line) for page in PAGES for line in console_lines(page) if re.match(r"(\.venv/bin/)?bgbatch ", line)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_printed_command_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    words = words[: next((place for place, word in enumerate(words) if word in ("|", ">", "&&", "&")), len(words))]
    command: click.Command = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        name = words.pop(0)
        assert name in command.commands, f"`bgbatch` has no {name!r}"
        command = command.commands[name]
    if "--help" in words:
        return
    context = command.make_context("bgbatch", words, resilient_parsing=False)
    assert context.command is command


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_in_a_sentence_exists_with_its_options(page: Path) -> None:
    text = page.read_text().replace("-n bgbatch ", "")  # kubectl's name space
    said = "\n".join("".join(each) for each in re.findall(r"`([^`\n]+)`|^    (.+)", text, re.MULTILINE))
    for line in re.findall(r"(?:^| )bgbatch ([a-z-].*)", said, re.MULTILINE):
        command: click.Command = typer.main.get_command(app)
        words = shlex.split(line, comments=True)
        while hasattr(command, "commands") and words and not words[0].startswith("--"):
            command = command.commands[words.pop(0)]
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts, "--help")}
        assert {word for word in words if word.startswith("--")} <= known, line


def headings(page: Path) -> set[str]:
    """As GitHub names their anchors."""
    found = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    for target, _, anchor in (each.partition("#") for each in re.findall(r"\]\(([^)]+)\)", page.read_text())):
        if "://" not in target:
            assert (page.parent / target).exists(), target
            assert not anchor or anchor in headings(page.parent / target if target else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_named_setting_or_target_exists(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"BGBATCH_([A-Z0-9_]+)", text):
        assert name.lower() in Settings.model_fields, name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_named_file_exists(page: Path) -> None:
    packages = "schemas|store|consent|lake|workers|flows|portal|deploy|bench|docs|tests|scripts"
    for name in re.findall(rf"`((?:{packages})/[\w./-]*\w)", page.read_text()):
        assert name == "deploy/.env" or (ROOT / name).exists(), name
