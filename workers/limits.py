"""How long a call may take, when an actor is worn, and how many actors a queue is worth. Pure.

A call's limit is no measure of speed: it is what no healthy worker can need, so that a hung one is found.
"""

from __future__ import annotations

import math

CALLS_PER_ACTOR = 2
"""The actor never idles, and little is lost or left over on a cancel: one runs and one waits, on a GPU both run."""

_ANY_CALL = 60.0  # a store that answers after all its own retries
_ANY_ITEM = 5.0
_MEGAPIXEL = 0.5  # all options at once, as a WebP of 50 megapixels, take a third of this on one CPU

STARTS_WITHIN = 900.0
"""Seconds until the first actor must be ready: a cloud needs minutes for a machine with a GPU."""


def calls_at_once(device: str) -> int:
    """How many of its calls an actor on this device does at the same time."""
    return CALLS_PER_ACTOR if device.startswith("cuda") else 1


def seconds_for(items: int, megapixels: float) -> float:
    """Within which a call with so many items, of at most so many megapixels each, must have ended."""
    return _ANY_CALL + items * (_ANY_ITEM + _MEGAPIXEL * megapixels)


def seconds_for_a_step(megapixels: float) -> float:
    """Within which a worker that is at a call must have ended a step of any of its items: read, segmented or written.

    A step has up to three calls to the store, and what is segmented together is no more than two large photos.
    """
    return 3 * seconds_for(1, megapixels)


def is_worn(items: int, memory: int, most_items: int, most_memory: int) -> bool:
    """Whether an actor that has done so many items and holds so many bytes is to be replaced; a most of 0 is none."""
    return (0 < most_items <= items) or (0 < most_memory <= memory)


def actors_worth(shards: int, most: int) -> int:
    """How many actors so many shards keep busy."""
    return max(1, min(most, math.ceil(shards / CALLS_PER_ACTOR)))


def places_in(cpus: float, gpus: float, gpu_share: float | None) -> int:
    """How many actors fit: one for each CPU, or for each share of a GPU (`gpu_share`); no actor spans two GPUs."""
    if gpu_share is not None:
        return max(1, math.floor(gpus) * math.floor(1 / gpu_share + 1e-9))
    return max(1, math.floor(cpus))
