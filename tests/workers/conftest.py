from __future__ import annotations

import os

import pytest
import torch

from store.settings import Settings
from workers.cutter import Cutter, open_cutter

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined


@pytest.fixture(scope="session")
def cutter(tmp_path_factory) -> Cutter:
    return open_cutter(Settings(home=tmp_path_factory.mktemp("home"), max_megapixels=6, max_megabytes=2))
