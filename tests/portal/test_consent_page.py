"""docs/consent.md stays true: its limits and addresses are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from portal.web.limits import LINKS_FROM, LINKS_TO, POSTS, SIGN_INS
from tests.portal.conftest import Site
from tests.portal.test_keys_and_limits import paths_of

TEXT = (Path(__file__).parents[2] / "docs" / "consent.md").read_text()


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
