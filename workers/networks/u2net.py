"""U²-Net (Qin et al. 2020) in its full and its small "p" size, and IS-Net (Qin et al. 2022), of the same blocks.

A U-shaped network whose every stage is itself a small U (an RSU block). Batch normalisation is folded into the
convolutions (`workers.networks.folding`), so a block here is convolution, bias, ReLU. The names of the
parts are those of the published code, so that published weights load by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Stage:
    """One RSU block. `height`: pooling levels and one more; 0 is the flat block of stages 5 and 6."""

    name: str
    height: int
    inside: int
    middle: int
    outside: int


@dataclass(frozen=True)
class Shape:
    """What tells the sizes apart. `stem` is the channel count of IS-Net's first, halving convolution; 0 is none.

    `fused`: the mask is a blend of all six side outputs (U²-Net) and not the first of them (IS-Net).
    """

    down: tuple[Stage, ...]
    up: tuple[Stage, ...]
    stem: int
    fused: bool


def _stages(full: bool, first: int) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    heights = (7, 6, 5, 4, 0, 0)
    outside = (64, 128, 256, 512, 512, 512) if full else (64,) * 6
    middle = (32, 32, 64, 128, 256, 256) if full else (16,) * 6
    inside = (first, *outside[:-1])
    down = tuple(
        Stage(f"stage{level + 1}", heights[level], inside[level], middle[level], outside[level]) for level in range(6)
    )
    up_outside = (64, 64, 128, 256, 512) if full else (64,) * 5
    up_middle = (16, 32, 64, 128, 256) if full else (16,) * 5
    below = (*up_outside[1:], outside[5])
    up = tuple(
        Stage(
            f"stage{level + 1}d",
            heights[level],
            below[level] + outside[level],
            up_middle[level],
            up_outside[level],
        )
        for level in reversed(range(5))
    )
    return down, up


U2NET = Shape(*_stages(full=True, first=3), stem=0, fused=True)
U2NETP = Shape(*_stages(full=False, first=3), stem=0, fused=True)
ISNET = Shape(*_stages(full=True, first=64), stem=64, fused=False)


class ConvRelu(nn.Module):
    """3×3 convolution and ReLU; where the published code has a batch norm between, it is folded in."""

    def __init__(self, inside: int, outside: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(inside, outside, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Convolve and rectify. `below`: what comes from a deeper level, to be resized and put before `x`."""
        if below is not None:
            x = torch.cat((resized(below, x), x), 1)
        return functional.relu(self.conv_s1(x), inplace=not torch.is_grad_enabled())


class Halved(nn.Module):
    """Max-pooled by two, the last odd row and column kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Of N×C×H×W."""
        return functional.max_pool2d(x, 2, stride=2, ceil_mode=True)


class Side(nn.Conv2d):
    """The mask as one level sees it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, 3, padding=1)


class Rsu(nn.Module):
    """A U of `height` levels: pooled between levels on the way down, resized and joined on the way up."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.height = stage.height
        self.halved = Halved()
        self.rebnconvin = ConvRelu(stage.inside, stage.outside)
        for level in range(1, stage.height + 1):
            inside = stage.outside if level == 1 else stage.middle
            self.add_module(f"rebnconv{level}", ConvRelu(inside, stage.middle, 2 if level == stage.height else 1))
        for level in reversed(range(1, stage.height)):
            outside = stage.outside if level == 1 else stage.middle
            self.add_module(f"rebnconv{level}d", ConvRelu(2 * stage.middle, outside))

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Down, up, and the block's own input added. `below`: as of a `ConvRelu`."""
        entry = self.rebnconvin(x, below)
        levels: list[Tensor] = []
        x = entry
        for level in range(1, self.height):
            x = self.get_submodule(f"rebnconv{level}")(self.halved(x) if level > 1 else x)
            levels.append(x)
        x = self.get_submodule(f"rebnconv{self.height}")(x)
        for level in reversed(range(1, self.height)):
            x = self.get_submodule(f"rebnconv{level}d")(levels[level - 1], x)
        return x.add_(entry) if not torch.is_grad_enabled() else x + entry


class FlatRsu(nn.Module):
    """The block of the two deepest stages: nothing is pooled, the dilation doubles instead."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        middle = stage.middle
        self.rebnconvin = ConvRelu(stage.inside, stage.outside)
        self.rebnconv1 = ConvRelu(stage.outside, middle)
        self.rebnconv2 = ConvRelu(middle, middle, 2)
        self.rebnconv3 = ConvRelu(middle, middle, 4)
        self.rebnconv4 = ConvRelu(middle, middle, 8)
        self.rebnconv3d = ConvRelu(2 * middle, middle, 4)
        self.rebnconv2d = ConvRelu(2 * middle, middle, 2)
        self.rebnconv1d = ConvRelu(2 * middle, stage.outside)

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Down, up, and the block's own input added. `below`: as of a `ConvRelu`."""
        entry = self.rebnconvin(x, below)
        first = self.rebnconv1(entry)
        second = self.rebnconv2(first)
        third = self.rebnconv3(second)
        x = self.rebnconv4(third)
        x = self.rebnconv3d(torch.cat((x, third), 1))
        x = self.rebnconv2d(torch.cat((x, second), 1))
        x = self.rebnconv1d(torch.cat((x, first), 1))
        return x.add_(entry) if not torch.is_grad_enabled() else x + entry


class U2Net(nn.Module):
    """Images, normalised, N×3×H×W → saliency from 0 to 1, N×1×H×W."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fused = shape.fused
        self.halved = Halved()
        self.conv_in: nn.Module = nn.Conv2d(3, shape.stem, 3, stride=2, padding=1) if shape.stem else nn.Identity()
        for stage in (*shape.down, *shape.up):
            self.add_module(stage.name, Rsu(stage) if stage.height else FlatRsu(stage))
        sides = [stage.outside for stage in reversed(shape.up)] + [shape.down[-1].outside]
        for level, channels in enumerate(sides if shape.fused else sides[:1], start=1):
            self.add_module(f"side{level}", Side(channels))
        if shape.fused:
            self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The saliency of each pixel."""
        x = self.conv_in(image)
        levels: list[Tensor] = []
        for level in range(1, 7):
            x = self.get_submodule(f"stage{level}")(self.halved(x) if level > 1 else x)
            levels.append(x)
        outputs = [x]
        for level in reversed(range(1, 6)):
            x = self.get_submodule(f"stage{level}d")(levels[level - 1], x)
            outputs.append(x)
        outputs.reverse()  # the finest first, as the sides are numbered
        first = self.get_submodule("side1")(outputs[0])
        if not self.fused:
            return torch.sigmoid(resized(first, image))
        others = (resized(self.get_submodule(f"side{level}")(outputs[level - 1]), first) for level in range(2, 7))
        return torch.sigmoid(cast(Tensor, self.outconv(torch.cat((first, *others), 1))))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of `like`."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
