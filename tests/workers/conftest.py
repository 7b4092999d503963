from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from store.settings import Settings
from workers.cutter import Cutter, open_cutter
from workers.segmenter import Segmenter

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined
    os.environ["TORCHINDUCTOR_VEC_ISA_OK"] = "0"  # else programs are built that ask this CPU what it can do


@pytest.fixture(scope="session")
def cutter(tmp_path_factory) -> Cutter:
    return open_cutter(Settings(home=tmp_path_factory.mktemp("home"), max_megapixels=6, max_megabytes=2))


def coarse(cutter: Cutter) -> Cutter:
    """Its network sees a quarter of the pixels, in a third of the time: for what hangs on no mask being a good one."""
    usual = cutter.segmenter
    segmenter = Segmenter(usual.module, replace(usual.preparation, side=160), usual.device, usual.running)
    return Cutter(segmenter, cutter.network, cutter.weights_sha256, cutter.limits, cutter.pace)
