"""The heaviest convolutions of a network in 8 bits, on CPUs that multiply bytes four times as fast as floats (VNNI).

Weights are rounded by output channel, what flows in by one range that was measured beforehand. What rounding the
weights adds to each output on average, for what flows in on average, is taken out of its bias: that alone halves what
the masks lose. Only convolutions whose rounding hardly moves the mask are chosen (`scripts/calibrate.py` measures
each): all of them together must stay under 2/255 on every photo, which a test holds. Results stay 32-bit between them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor, nn

from workers.networks.joining import joined_in_bytes
from workers.networks.u2net import ConvRelu


class Inflow(NamedTuple):
    """What flows into a convolution: the largest value, and each channel's mean. The least is 0: it follows a ReLU."""

    top: float
    means: list[float]


Ranges = dict[str, Inflow]
"""By the name of a `ConvRelu`."""


def ranges_beside(weights: Path) -> Ranges:
    """The measured ranges that lie beside a weights file; none when there are none."""
    path = weights.with_suffix(".ranges.json")
    return {name: Inflow(*each) for name, each in json.loads(path.read_text()).items()} if path.is_file() else {}


def can_run_here() -> bool:
    """Whether this CPU multiplies bytes, and this torch has the operators."""
    return bool(torch.cpu._is_vnni_supported()) and hasattr(torch.ops.onednn, "qconv2d_pointwise")


def in_eight_bits(module: nn.Module, ranges: Ranges) -> nn.Module:
    """The module itself, with the named blocks replaced."""
    for name, inflow in ranges.items():
        block = module.get_submodule(name)
        if not isinstance(block, ConvRelu):
            raise TypeError(f"{name} is no convolution with a ReLU")
        module.set_submodule(name, EightBitConvRelu(block.conv_s1, inflow))
    return module


class EightBitConvRelu(nn.Module):
    """Convolution and ReLU: floats in, rounded to 0…255 steps of `inflow.top / 255`, floats out."""

    def __init__(self, conv: nn.Conv2d, inflow: Inflow) -> None:
        super().__init__()
        self.step = inflow.top / 255
        weight = conv.weight.detach()
        self.scales = (weight.abs().amax((1, 2, 3)) / 127).clamp(min=1e-12)
        rounded = torch.round(weight / self.scales[:, None, None, None]).to(torch.int8)
        added = (rounded * self.scales[:, None, None, None] - weight).sum((2, 3)) @ torch.tensor(inflow.means)
        self.bias = (torch.zeros_like(added) if conv.bias is None else conv.bias.detach()) - added
        self.zeros = torch.zeros(conv.out_channels, dtype=torch.int64)
        self.padding, self.dilation = list(cast(tuple[int, ...], conv.padding)), list(conv.dilation)
        self.packed = torch.ops.onednn.qconv_prepack(
            rounded, self.scales, self.step, 0, [1, 1], self.padding, self.dilation, 1, None
        )

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Convolve and rectify. `below`: as of a `ConvRelu`."""
        return cast(
            Tensor,
            torch.ops.onednn.qconv2d_pointwise(
                rounded_to_bytes(x, self.step) if below is None else joined_in_bytes(below, x, self.step),
                self.step, 0, self.packed, self.scales, self.zeros, self.bias,
                [1, 1], self.padding, self.dilation, 1, 1.0, 0, torch.float32, "relu", [None], None,
            ),
        )  # fmt: skip


def rounded_to_bytes(x: Tensor, step: float) -> Tensor:
    """The tensor in whole steps from 0 to 255, laid out channels last."""
    values = x.permute(0, 2, 3, 1).contiguous()
    flat = _rounded(values.numpy().reshape(-1), np.float32(1 / step))
    return torch.from_numpy(flat).view(values.shape).permute(0, 3, 1, 2)


@njit(cache=True, nogil=True, fastmath=True)
def _rounded(values: npt.NDArray[np.float32], per_step: np.float32) -> npt.NDArray[np.uint8]:
    out = np.empty(values.size, np.uint8)
    for i in range(values.size):
        out[i] = np.uint8(min(values[i] * per_step + np.float32(0.5), np.float32(255)))
    return out
