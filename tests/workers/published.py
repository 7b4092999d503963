"""U²-Net and IS-Net as their authors publish them, with batch norms apart and under the published names.

Written from the published descriptions and apart from our own code on purpose: what loads from a file made with these
loads from the files that people have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Rebnconv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inside: int, outside: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(inside, outside, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn_s1(self.conv_s1(x)))


def pooled(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2, stride=2, ceil_mode=True)


def like(x: Tensor, other: Tensor) -> Tensor:
    return functional.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)


class Rsu(nn.Module):
    """RSU7 to RSU4, and RSU4F when `flat`."""

    def __init__(self, levels: int, inside: int, middle: int, outside: int, flat: bool = False) -> None:
        super().__init__()
        self.levels, self.flat = levels, flat
        dilations = [2**level for level in range(levels)] if flat else [1] * (levels - 1) + [2]
        self.rebnconvin = Rebnconv(inside, outside)
        for level, dilation in enumerate(dilations, start=1):
            setattr(self, f"rebnconv{level}", Rebnconv(outside if level == 1 else middle, middle, dilation))
        for level in range(levels - 1, 0, -1):
            dilation = dilations[level - 1]
            setattr(self, f"rebnconv{level}d", Rebnconv(2 * middle, outside if level == 1 else middle, dilation))

    def forward(self, x: Tensor) -> Tensor:
        first = self.rebnconvin(x)
        down = [self.rebnconv1(first)]
        for level in range(2, self.levels + 1):
            above = down[-1] if self.flat or level == self.levels else pooled(down[-1])
            down.append(getattr(self, f"rebnconv{level}")(above))
        up = down.pop()
        while down:
            beside = down.pop()
            step = getattr(self, f"rebnconv{len(down) + 1}d")
            up = step(torch.cat((up if up.shape == beside.shape else like(up, beside), beside), 1))
        return up + first


class Published(nn.Module):
    """U2NET (with `outconv`), or ISNetDIS (with `conv_in`)."""

    def __init__(self, isnet: bool) -> None:
        super().__init__()
        self.isnet = isnet
        if isnet:
            self.conv_in = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.stage1 = Rsu(7, 64 if isnet else 3, 32, 64)
        self.stage2 = Rsu(6, 64, 32, 128)
        self.stage3 = Rsu(5, 128, 64, 256)
        self.stage4 = Rsu(4, 256, 128, 512)
        self.stage5 = Rsu(4, 512, 256, 512, flat=True)
        self.stage6 = Rsu(4, 512, 256, 512, flat=True)
        self.stage5d = Rsu(4, 1024, 256, 512, flat=True)
        self.stage4d = Rsu(4, 1024, 128, 256)
        self.stage3d = Rsu(5, 512, 64, 128)
        self.stage2d = Rsu(6, 256, 32, 64)
        self.stage1d = Rsu(7, 128, 16, 64)
        for level, channels in enumerate((64, 64, 128, 256, 512, 512), start=1):
            setattr(self, f"side{level}", nn.Conv2d(channels, 1, 3, padding=1))
        if not isnet:
            self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        down = [self.stage1(self.conv_in(x) if self.isnet else x)]
        for level in range(2, 7):
            down.append(getattr(self, f"stage{level}")(pooled(down[-1])))
        up = [down[5]]
        for level in range(5, 0, -1):
            up.insert(0, getattr(self, f"stage{level}d")(torch.cat((like(up[0], down[level - 1]), down[level - 1]), 1)))
        sides = [getattr(self, f"side{level}")(each) for level, each in enumerate(up, start=1)]
        if self.isnet:
            return tuple(torch.sigmoid(like(side, x)) for side in sides)
        sides = [sides[0], *(like(side, sides[0]) for side in sides[1:])]
        return tuple(torch.sigmoid(each) for each in (self.outconv(torch.cat(sides, 1)), *sides))


def published(isnet: bool) -> Published:
    """With random weights that let something through, and batch norms that have seen something."""
    torch.manual_seed(0)
    network = Published(isnet)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    network.eval().requires_grad_(False)
    seen: list[Tensor] = []
    hook = network.side1.register_forward_hook(lambda *call: seen.append(call[2]))
    network(torch.rand(1, 3, 64, 64))
    hook.remove()
    scale = 2 / seen[0].std()  # logits around 0 that spread by 2: a mask with all grays
    network.side1.weight *= scale
    network.side1.bias.copy_((network.side1.bias - seen[0].mean()) * scale)
    return network
