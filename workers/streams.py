"""Streams of a GPU: what threads ask of it on streams of their own runs at the same time.

They are kept for the cutter's life, because the memory that a stream once took serves that stream alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import torch


class Streams:
    """As many as there are threads that drive the device; on a CPU there is nothing to be kept apart."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._free: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for _ in range(count):
            self._free.put(
                torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
            )

    @contextmanager
    def one(self) -> Iterator[None]:
        """Within, all that this thread asks of the device goes to one of them; waits while none is free."""
        stream = self._free.get()
        try:
            with torch.cuda.stream(stream):  # None: as it was
                yield
        finally:
            self._free.put(stream)


def wait_for(device: torch.device) -> None:
    """Until all is done that this thread asked of the device; meanwhile its processor is free for others."""
    if device.type == "cuda":
        asked = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        asked.record(torch.cuda.current_stream(device))
        asked.synchronize()


def used_here(kept: torch.Tensor) -> torch.Tensor:
    """A tensor that threads share: dropped by one, its memory is not given away while this stream still reads it."""
    if kept.is_cuda:
        kept.record_stream(torch.cuda.current_stream(kept.device))
    return kept
