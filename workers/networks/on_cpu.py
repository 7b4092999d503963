"""The same networks, with the same results, for a CPU: torch's plain ways cost more there.

Convolution and ReLU are one call. A convolution with a single output channel computes sixteen; written out it is six
times cheaper. What is resized and joined is written to memory once. (16-bit floats, where the processor has them, halve
what a large convolution takes. In stage2d.rebnconv1d alone they move a mask by 37/255; in the large ones before it they
would save a tenth, and use up what the 8-bit ones leave of the 2/255.)
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from workers.networks.joining import joined
from workers.networks.u2net import ConvRelu, Side


def for_cpu(module: nn.Module) -> nn.Module:
    """The module itself, with its convolutions replaced."""
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")  # type: ignore[no-untyped-call]
    for name, block in list(module.named_modules()):
        if isinstance(block, ConvRelu) and has_onednn:
            module.set_submodule(name, FusedConvRelu(block.conv_s1))
        elif isinstance(block, Side):
            module.set_submodule(name, OneChannel(block))
    return module


class FusedConvRelu(nn.Module):
    """Convolution and ReLU as one call of oneDNN's."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.how = (list(cast(tuple[int, ...], conv.padding)), [1, 1], list(conv.dilation), 1)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *self.how, None)
        self.bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Convolve and rectify. `below`: as of a `ConvRelu`."""
        x = x if below is None else joined(below, x)
        return cast(
            Tensor, torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.how, "relu", [], "")
        )


class OneChannel(nn.Module):
    """A 3 × 3 convolution to a single channel."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.taps = conv.weight.detach()[0].permute(1, 2, 0).contiguous().numpy()
        self.bias = 0.0 if conv.bias is None else conv.bias.item()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        values = x.permute(0, 2, 3, 1).contiguous().numpy()
        return torch.from_numpy(
            np.stack([_convolved(each, self.taps, np.float32(self.bias)) for each in values])[:, None]
        )


@njit(cache=True, nogil=True, fastmath=True)
def _convolved(values, taps, bias):  # type: ignore[no-untyped-def]
    """Each pixel is read once and given to its nine neighbours; the frame takes what falls outside."""
    height, width, channels = values.shape
    framed = np.full((height + 2, width + 2), bias, np.float32)
    for y in range(height):
        for x in range(width):
            pixel = values[y, x]
            for down in range(3):
                for across in range(3):
                    total = np.float32(0)
                    for channel in range(channels):
                        total += pixel[channel] * taps[down, across, channel]
                    framed[y + 2 - down, x + 2 - across] += total
    return framed[1:-1, 1:-1]
