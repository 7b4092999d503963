from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.nights.market import Market, open_market


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = open_market(tmp_path, f"file://{tmp_path}/bazaar")
    yield made
    made.parts.records.engine.dispose()
