from __future__ import annotations

import pytest

from store.settings import Settings
from workers.cutter import Cutter, open_cutter


@pytest.fixture(scope="session")
def cutter(tmp_path_factory) -> Cutter:
    return open_cutter(Settings(home=tmp_path_factory.mktemp("home"), max_megapixels=6, max_megabytes=2))
