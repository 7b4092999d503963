"""docs/consent.md stays true: its settings, commands, limits and addresses are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from portal.cli import account, consent
from portal.web.limits import LINKS_FROM, LINKS_TO, POSTS, SIGN_INS
from store.settings import Settings
from tests.portal.conftest import Site
from tests.portal.test_keys_and_limits import paths_of

PAGE = Path(__file__).parents[2] / "docs" / "consent.md"
TEXT = PAGE.read_text()
GROUPS = {"consent": get_command(consent.app), "account": get_command(account.app)}


def test_every_setting_exists() -> None:
    named = set(re.findall(r"BGBATCH_([A-Z_]+)", TEXT))
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


@pytest.mark.parametrize("line", re.findall(r"bgbatch (\w+ [a-z-]+[^#`\n]*)", TEXT))
def test_every_command_exists_with_its_options(line: str) -> None:
    group, verb, *rest = line.split()
    command = GROUPS[group].commands[verb]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options


def test_the_limits_are_those_of_the_code() -> None:
    assert f"| {POSTS.most} a minute |" in TEXT
    assert f"| {SIGN_INS.most} in {SIGN_INS.window.seconds // 60} minutes |" in TEXT
    assert f"| {LINKS_FROM.most} an hour; {LINKS_TO.most} an hour to one e-mail address |" in TEXT
    assert [each.window.seconds for each in (POSTS, LINKS_FROM, LINKS_TO)] == [60, 3600, 3600]


def test_every_address_is_answered(site: Site) -> None:
    answered = {path for path, _ in paths_of(site.app.routes)}
    named = re.findall(r"`(?:POST )?(/[a-z0-9/-]+)`", TEXT)
    assert {"/v1/consent/withdrawals", "/sign-in/provider/back"} <= set(named)
    assert set(named) <= answered


def test_every_file_is_there() -> None:
    root = PAGE.parents[1]
    for name in re.findall(r"`((?:consent|tests|bench|docs)/[\w./]+)`", TEXT):
        assert (root / name).exists(), name
