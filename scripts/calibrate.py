"""Measure what flows into a network's convolutions, and what 8 bits there do to its masks; write the ranges to use.

    python scripts/calibrate.py workers/weights/u2netp.safetensors --network u2netp PHOTO…

For each large convolution it prints the mean difference of the mask (in 255ths) with that one alone in 8 bits. It
keeps, greedily from cheapest difference for the work saved, as many as stay under the bound on every photo.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from workers.decode import Limits, decode
from workers.memory import keep_freed_memory
from workers.networks.eight_bits import Inflow, Ranges, in_eight_bits
from workers.networks.registry import find_network
from workers.networks.u2net import ConvRelu
from workers.networks.weights import load_weights
from workers.reduce import halved, squeezed
from workers.segmenter import normalised, spread

BOUND = 1.75
"""Mean difference to the 32-bit mask, in 255ths, on the worst photo. The goal is 2; the resize has its share too, which
`python -m bench.masks` then measures with it."""

QUANTILE = 0.9999


def main() -> None:
    """Calibrate one weights file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("weights", type=Path)
    arguments.add_argument("photos", type=Path, nargs="+")
    arguments.add_argument("--network", default="u2netp")
    chosen = arguments.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    network = find_network(chosen.network)
    module = load_weights(network, chosen.weights)[0].to(memory_format=torch.channels_last)
    images = [image for path in chosen.photos for image in _inputs(path, network.preparation)]
    ranges, work = measure(module, images)
    wants = network.preparation
    exact = [_mask(module, image, wants) for image in images]

    def worst(some: Ranges) -> float:
        rounded = in_eight_bits(copy.deepcopy(module), some)
        return max(float(np.abs(_mask(rounded, i, wants) - e).mean()) for i, e in zip(images, exact, strict=True))

    large = [name for name in ranges if work[name] > 0.02 * sum(work.values())]
    alone = {name: worst({name: ranges[name]}) for name in large}
    kept: Ranges = {}
    for name in sorted(large, key=lambda name: alone[name] / work[name]):
        together = worst(kept | {name: ranges[name]})
        fits = together <= BOUND
        print(
            f"{name:24} alone {alone[name]:6.2f}  together {together:6.2f}  {'kept' if fits else 'left in 32 bits'}",
            flush=True,
        )
        if fits:
            kept[name] = ranges[name]
    lines = (f" {json.dumps(name)}: {json.dumps(inflow)}" for name, inflow in kept.items())
    chosen.weights.with_suffix(".ranges.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def measure(module: nn.Module, images: list[torch.Tensor]) -> tuple[Ranges, dict[str, int]]:
    """What flows into each block, and the multiplications that it takes."""
    tops: dict[str, float] = {}
    means: dict[str, list[torch.Tensor]] = {}
    work: dict[str, int] = {}

    def look(name: str, conv: nn.Conv2d, x: torch.Tensor) -> None:
        if float(x.min()) >= 0:
            top = float(np.quantile(x.numpy().ravel()[::7], QUANTILE))
            tops[name] = round(max(tops.get(name, 0.0), top), 4)
            means.setdefault(name, []).append(x.mean((0, 2, 3)))
            work[name] = conv.weight.numel() * x.shape[2] * x.shape[3]

    hooks = [
        block.conv_s1.register_forward_pre_hook(lambda conv, args, name=name: look(name, conv, args[0]))
        for name, block in module.named_modules()
        if isinstance(block, ConvRelu)
    ]
    with torch.inference_mode():
        for image in images:
            module(image)
    for hook in hooks:
        hook.remove()
    return {
        name: Inflow(top, [round(float(each), 4) for each in torch.stack(means[name]).mean(0)])
        for name, top in tops.items()
    }, work


def _inputs(path: Path, wants) -> list[torch.Tensor]:
    photo = decode(path.read_bytes(), Limits(100_000_000, 100_000_000)).rgb
    # Some photos are on the edge of what the network can decide: one such change or another may tip them over.
    noises = (np.random.default_rng(seed).normal(0, 10, photo.shape) for seed in range(4))
    noisy = (np.clip(photo + noise, 0, 255).astype(np.uint8) for noise in noises)
    pale = (np.asarray(128 + (photo - 128.0) * contrast, np.uint8) for contrast in (0.5, 0.6, 0.8))
    sides = (photo, photo[photo.shape[0] // 5 :, ::-1], *noisy, *pale)
    small = [squeezed(halved(np.ascontiguousarray(side), wants.side), wants.side) for side in sides]
    return [
        normalised(torch.from_numpy(each)[None], wants).contiguous(memory_format=torch.channels_last) for each in small
    ]


def _mask(module: nn.Module, image: torch.Tensor, wants) -> np.ndarray:
    with torch.inference_mode():
        return spread(module(image)[:, 0], wants)[0].numpy().astype(np.float32)


if __name__ == "__main__":
    main()
