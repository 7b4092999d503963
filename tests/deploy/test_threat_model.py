"""Each threat has an answer and a test, and the tests exist."""

from __future__ import annotations

import re

from tests.deploy.files import ROOT

ROWS = re.findall(r"^\| (.+?) \| (.+?) \| `(\S+)` \|$", (ROOT / "docs" / "threat-model.md").read_text(), re.M)


def test_every_row_of_the_table_names_a_test_that_there_is() -> None:
    assert len(ROWS) == (ROOT / "docs" / "threat-model.md").read_text().count("\n| ") - 1  # the head
    for threat, _, test in ROWS:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), threat
        assert "def test_" in (ROOT / path).read_text()
        assert not name or f"def {name}(" in (ROOT / path).read_text(), threat
