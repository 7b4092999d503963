"""The same networks, with the same results, for a GPU: channels last from beginning to end, and each step's result
written to memory once. They take six sevenths of the time that torch's compiler needs for U²-Netp (bench/RESULTS.md).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.networks.kernels import halved, joined
from workers.networks.u2net import ConvRelu, Halved, U2Net


class OnGpu(nn.Module):
    """A network whose steps are replaced by those below. What is compiled around it leaves it as it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for name, block in list(module.named_modules()):
            if isinstance(block, ConvRelu):
                module.set_submodule(name, FusedConvRelu(block.conv_s1))
            elif isinstance(block, Halved):
                module.set_submodule(name, HalvedAtOnce())
        if isinstance(module, U2Net) and isinstance(module.conv_in, nn.Conv2d):
            module.conv_in = BiasedByInput(module.conv_in)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, image: Tensor) -> Tensor:
        """As the network's own."""
        return cast(Tensor, self.module(image))


class FusedConvRelu(nn.Module):
    """Convolution, bias and ReLU as one call of cuDNN's."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.padding, self.dilation = cast(tuple[int, ...], conv.padding), conv.dilation

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Convolve and rectify. `below`: as of a `ConvRelu`."""
        x = x if below is None else joined(below, x)
        if x.is_cuda:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, (1, 1), self.padding, self.dilation, 1)
        # There is no cuDNN on a CPU, where the tests are.
        return functional.relu(functional.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation))


class HalvedAtOnce(nn.Module):
    """Max-pooled by two, without the places of what is kept, which torch writes down as well."""

    def forward(self, x: Tensor) -> Tensor:
        """Of N×C×H×W."""
        return halved(x)


class BiasedByInput(nn.Module):
    """A 3×3 convolution of an image, its bias the weight of one more channel that is 1: cuDNN would add it in a step of
    its own, which took IS-Net a thirtieth of its time. The tap in the middle never lies outside the image.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        bias = torch.zeros_like(conv.weight[:, :1])
        if conv.bias is not None:
            bias[:, 0, 1, 1] = conv.bias
        self.weight = nn.Parameter(torch.cat((conv.weight, bias), 1), requires_grad=False)
        self.stride, self.padding = conv.stride, cast(tuple[int, ...], conv.padding)

    def forward(self, image: Tensor) -> Tensor:
        """Convolve."""
        ones = torch.ones_like(image[:, :1])
        return functional.conv2d(torch.cat((image, ones), 1), self.weight, None, self.stride, self.padding)
