"""A network as a CPU runs it gives what torch's own modules give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from workers.networks.eight_bits import rounded_to_bytes
from workers.networks.joining import joined, joined_in_bytes
from workers.networks.on_cpu import FusedConvRelu, OneChannel, for_cpu
from workers.networks.u2net import ISNET, U2NETP, ConvRelu, Shape, Side, U2Net, resized

SIZES = [((10, 10), (20, 20)), ((7, 9), (13, 18)), ((1, 1), (2, 1)), ((5, 4), (5, 4)), ((20, 3), (37, 6))]


def values(channels: int, size: tuple[int, int], photos: int = 1) -> torch.Tensor:
    return torch.rand(photos, channels, *size).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("photos", [1, 3])
@pytest.mark.parametrize(("deeper", "size"), SIZES)
def test_what_is_joined_is_what_torch_resizes_and_puts_together(
    deeper: tuple[int, int], size: tuple[int, int], photos: int
) -> None:
    below, beside = values(5, deeper, photos), values(3, size, photos)
    wanted = torch.cat((resized(below, beside), beside), 1)
    ours = joined(below, beside)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    in_bytes, usual = joined_in_bytes(below, beside, 0.004), rounded_to_bytes(wanted, 0.004)
    assert (in_bytes.int() - usual.int()).abs().max() <= 1
    assert (in_bytes != usual).float().mean() < 0.01


def test_values_over_the_range_are_the_most_that_a_byte_holds() -> None:
    assert joined_in_bytes(values(2, (2, 2)) + 9, values(2, (4, 4)) + 9, 0.01).unique().tolist() == [255]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (8, 6)])
@torch.inference_mode()
def test_a_convolution_to_one_channel_is_torchs(size: tuple[int, int]) -> None:
    side, x = Side(7), values(7, size, 2) - 0.5
    torch.testing.assert_close(OneChannel(side)(x), nn.Conv2d.forward(side, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dilation", [1, 2, 8])
@torch.inference_mode()
def test_convolution_and_relu_in_one_call_are_torchs_two(dilation: int) -> None:
    block, x = ConvRelu(6, 16, dilation), values(6, (12, 9)) - 0.5
    torch.testing.assert_close(FusedConvRelu(block.conv_s1)(x), block(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [U2NETP, ISNET])
@torch.inference_mode()
def test_a_whole_network_gives_the_same(shape: Shape) -> None:
    torch.manual_seed(1)
    network = U2Net(shape).eval().to(memory_format=torch.channels_last)
    ours = for_cpu(copy.deepcopy(network))
    kinds = {type(each) for each in ours.modules()}
    assert {FusedConvRelu, OneChannel} <= kinds
    assert not {ConvRelu, Side} & kinds
    x = values(3, (96, 128)) - 0.5
    torch.testing.assert_close(ours(x), network(x), atol=1e-4, rtol=0)
