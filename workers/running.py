"""How a network is run on its device: in how many bits, how many photos at once, compiled or as it is. Pure.

On a CPU batching and compiling gain nothing (measured), so there a photo is run alone, in 32 bits. A GPU wants 16 bits
(which move a mask by 0.1 to 1.2 of 255 on average), many photos at once, and a compiled network, twice as fast as one
that is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from workers.lanes import Pace

_PIXELS_AT_ONCE = 16 * 1024 * 1024
MOST_AT_ONCE = 32
_PIXELS_OF_PHOTOS = 64_000_000
"""In a batch: of 2 MP, 32 photos. Of each call five or six lie in the host's memory, at 4 bytes a pixel or less."""

_CARRIERS = {"cpu": 4, "cuda": 32}
"""Threads that wait for the store, at each end: it answers after 10 to 50 ms, as a GPU makes twenty photos."""

_DRIVERS = 2
"""Threads of each call that drive a GPU, two of them all at a time (`Cutter.segment`): one has its photos decoded or
encoded while the other's network runs."""


@dataclass(frozen=True)
class Running:
    """`batch`: photos in one run at most; a compiled network is compiled for so many, and always given so many."""

    dtype: torch.dtype = torch.float32
    batch: int = 1
    compiled: bool = False


def running_on(device: torch.device, side: int, half: bool, most: int, compiled: bool) -> Running:
    """How a network with inputs of this side is run there.

    What a GPU may be given beyond a CPU: `half`: 16 bits; `most`: so many photos at once; `compiled`: compiling.
    """
    if device.type == "cpu":
        return Running()
    batch = max(1, min(most, _PIXELS_AT_ONCE // side**2))
    return Running(torch.float16 if half else torch.float32, batch, compiled)


def pace_on(device: torch.device, running: Running, cpus: int, actors: int) -> Pace:
    """Threads around the network. Beside a CPU's there is one for each end; beside a GPU's, its share of the CPUs.

    Most of what a GPU leaves to them is at the end, where files are deflated.
    """
    if device.type == "cpu":
        return Pace(readers=1, writers=1, batch=running.batch, carriers=_CARRIERS["cpu"])
    share = max(2, cpus // max(1, actors))
    return Pace(share // 2, share, running.batch, _DRIVERS, _PIXELS_OF_PHOTOS, _CARRIERS["cuda"])
