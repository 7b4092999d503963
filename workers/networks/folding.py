"""Batch normalisation folded into the convolution before it: the same function, one step fewer.

A batch norm at rest is `y = (x - mean) / sqrt(var + eps) * weight + bias`, which is linear, so it can be part of the
convolution's own weight and bias. Published U²-Net and IS-Net files carry it apart (`conv_s1` and `bn_s1`).
"""

from __future__ import annotations

import torch

State = dict[str, torch.Tensor]

_EPSILON = 1e-5
"""torch's default for BatchNorm2d, which the published networks keep."""

_PARTS = ("weight", "bias", "running_mean", "running_var")


def fold_batch_norms(state: State) -> State:
    """The state with each `*.bn_s1` folded into its `*.conv_s1`; one without any comes back as it was."""
    folded = {name: tensor for name, tensor in state.items() if ".bn_s1." not in name}
    for block in {name.rsplit(".bn_s1.", 1)[0] for name in state if ".bn_s1." in name}:
        weight, bias, mean, variance = (state[f"{block}.bn_s1.{part}"].double() for part in _PARTS)
        kernel = state[f"{block}.conv_s1.weight"]
        before = state.get(f"{block}.conv_s1.bias")
        scale = weight / torch.sqrt(variance + _EPSILON)
        shift = bias - mean * scale + (before.double() * scale if before is not None else 0)
        folded[f"{block}.conv_s1.weight"] = (kernel.double() * scale[:, None, None, None]).to(kernel.dtype)
        folded[f"{block}.conv_s1.bias"] = shift.to(kernel.dtype)
    return folded
