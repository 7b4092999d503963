"""A run on a GPU, recorded once: to start it again costs the CPU one step instead of hundreds.

Threads that had to share Python's lock for each of those steps would keep the GPU waiting.
See "CUDA Graphs" in NVIDIA's CUDA C++ programming guide.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

_RUNS_BEFORE = 3
"""Libraries settle on their way, and take their memory, in the first runs; recorded is what comes after."""


class Graph:
    """`run`, for inputs just like `example`. Threads may call it: a run begins when the last one's answer is taken."""

    def __init__(self, run: Callable[[Tensor], Tensor], example: Tensor) -> None:
        self._lock, self._taken = Lock(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._input, self._graph = example.clone(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(stream):
            for _ in range(_RUNS_BEFORE):
                run(self._input)
        torch.cuda.current_stream(example.device).wait_stream(stream)
        with torch.cuda.graph(self._graph, stream=stream):  # left to itself it would record on the first GPU
            self._output = run(self._input)

    def __call__(self, batch: Tensor) -> Tensor:
        """What `run` makes of it."""
        with self._lock:
            stream = torch.cuda.current_stream(batch.device)
            stream.wait_event(self._taken)
            self._input.copy_(batch)
            self._graph.replay()
            output = self._output.clone()
            self._taken.record(stream)
        return output
