"""What is written for a GPU in Triton makes what torch makes. Without a GPU Triton's interpreter runs it on the CPU."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.errors import NotCompiled
from workers import device_pixels
from workers.cutter import _on_gpu
from workers.device_pixels import full_alpha, on_colour
from workers.networks.registry import find_network
from workers.networks.u2net import ConvRelu, Halved, U2Net, resized
from workers.networks.weights import load_weights
from workers.networks.weights_file import weights_file
from workers.running import Running
from workers.segmenter import Segmenter

pytest.importorskip("triton")

from workers import photo_kernels
from workers.networks import kernels
from workers.networks.on_gpu import OnGpu

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
COLOUR = torch.tensor([255, 7, 130], dtype=torch.uint8, device=DEVICE)

SIZES = [(1, 60, 80, 32), (2, 41, 161, 32), (2, 30, 64, 64), (1, 24, 700, 80), (1, 9, 17, 64), (1, 20, 40, 136)]
"""Photos, their height and width, and the network's side: smaller and larger than they, and beyond a band."""


def noise(*size: int) -> Tensor:
    """Every value is as likely at every place: what lies at a wrong place shows."""
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, size, np.uint8)).to(DEVICE)


def furthest(ours: Tensor, usual: Tensor) -> float:
    return (ours.float() - usual.float()).abs().max().item()


@pytest.mark.parametrize(("many", "height", "width", "side"), SIZES)
def test_photos_are_squeezed_as_torch_does_it(many: int, height: int, width: int, side: int) -> None:
    photos = noise(many, 3, height, width)
    ours, usual = photo_kernels.squeezed(photos, side), device_pixels.squeezed(photos, side)
    assert furthest(ours, usual) <= 1
    assert (ours != usual).float().mean() < 0.001, "only where a value lies between two numbers"


@pytest.mark.parametrize(("many", "height", "width", "side"), SIZES)
def test_masks_are_spread_and_photos_put_on_a_colour_as_torch_does_it(
    many: int, height: int, width: int, side: int
) -> None:
    photos, masks = noise(many, 3, height, width), noise(many, side, side)
    alpha, usual = photo_kernels.full_alpha(masks, height, width), full_alpha(masks, height, width)
    assert furthest(alpha, usual) <= 1
    assert (alpha != usual).float().mean() < 0.001
    made = photo_kernels.spread_on_colour(photos, masks, COLOUR)
    assert torch.equal(made, torch.stack([on_colour(*each, COLOUR) for each in zip(photos, alpha, strict=True)]))


CHANNELS_LAST = torch.channels_last
SHAPES = [
    ((2, 16, 5, 7), (16, 10, 14)),
    ((1, 64, 5, 4), (64, 9, 7)),
    ((2, 32, 8, 8), (16, 8, 8)),
    ((1, 24, 3, 15), (48, 6, 30)),
    ((1, 512, 2, 2), (256, 3, 4)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("low", "high"), SHAPES)
def test_levels_are_resized_joined_and_halved_as_torch_does_it(
    low: tuple[int, ...], high: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(2)
    below, x = (
        torch.randn(size, device=DEVICE).to(dtype, memory_format=CHANNELS_LAST) for size in (low, (low[0], *high))
    )
    ours = kernels.joined(below, x)
    usual = torch.cat((resized(below.float(), x.float()), x.float()), 1)
    assert furthest(ours, usual) < (2e-3 if dtype == torch.float16 else 2e-6)
    assert ours.is_contiguous(memory_format=CHANNELS_LAST)
    assert torch.equal(kernels.halved(x), Halved()(x))


@pytest.mark.parametrize("name", ["u2netp", "isnet"])
def test_a_network_for_a_gpu_sees_what_it_saw(name: str) -> None:
    network = find_network(name)
    torch.manual_seed(3)
    module = load_weights(network, weights_file(name, None))[0] if name == "u2netp" else network.build()
    module = module.eval().requires_grad_(False).to(DEVICE, memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    image = torch.rand(1, 3, 24, 40, device=DEVICE).to(memory_format=CHANNELS_LAST)  # 12, 6, 3, 2 and 1 rows below
    with torch.inference_mode():
        usual = module(image)
        assert furthest(OnGpu(module)(image), usual) < (5e-3 if ON_GPU else 1e-4)  # a GPU has convolutions in 19 bits


def test_the_bias_of_a_first_convolution_reaches_the_edges() -> None:
    module = find_network("isnet").build().eval().requires_grad_(False)
    assert isinstance(module, U2Net)
    first = copy.deepcopy(module.conv_in)
    image = torch.rand(1, 3, 9, 12)
    assert furthest(OnGpu(module).module.conv_in(image), first(image)) < 1e-6  # type: ignore[operator,union-attr]


def test_what_is_compiled_around_a_network_for_a_gpu_leaves_it_as_it_is() -> None:
    torch.manual_seed(4)
    module = nn.Sequential(ConvRelu(3, 8), Halved(), nn.Conv2d(8, 1, 1), nn.Sigmoid())
    wants = replace(find_network("u2netp").preparation, side=32)
    torch._dynamo.reset()
    plain = Segmenter(copy.deepcopy(module), wants, DEVICE, Running(batch=1))
    ours = Segmenter(OnGpu(module), wants, DEVICE, Running(batch=1, compiled=True))
    photo = np.random.default_rng(5).integers(0, 256, (50, 70, 3), np.uint8)
    (mask,), (usual,) = ours.segment([photo]), plain.segment([photo])
    assert np.abs(mask.astype(int) - usual).max() <= 2


@pytest.mark.skipif(ON_GPU, reason="a GPU compiles them in all the tests above")
def test_each_step_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    generations = ("75", "80", "90")
    compiling = [sys.executable, "-m", "tests.workers.kernels_for", *generations]
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(compiling, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = {"_across", "_down", "_spread", "_put_on_colour", "_halve", "_join"}
    assert {tuple(line.split()[:2]) for line in done.stdout.splitlines()} == set(product(generations, steps))


def test_where_triton_is_absent_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workers.networks.on_gpu", None)
    with pytest.raises(NotCompiled, match="BGBATCH_COMPILED=false"):
        _on_gpu(nn.Identity())
