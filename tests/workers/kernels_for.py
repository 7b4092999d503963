"""Compiles what is written in Triton for GPUs that are not here. `python -m tests.workers.kernels_for 75 90`.

The steps run as on a GPU, over tensors in the host's memory, but where a kernel would be started it is only compiled,
down to the GPU's own code. Prints the generation, the kernel's name, and its bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver

from workers import photo_kernels
from workers.networks import kernels

SHARED = {75: 64 * 1024, 80: 163 * 1024, 90: 227 * 1024}
"""Bytes that a program may share on a GPU of each generation (CUDA programming guide, compute capabilities)."""


class AbsentGpu(DriverBase):  # type: ignore[misc]
    """A GPU of a generation, such as 90 for 9.0, that loads each program and runs none."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.utils = SimpleNamespace(
            get_device_properties=lambda _: {"max_shared_mem": SHARED[generation]},
            load_binary=self._loaded,
            unload_module=lambda _: None,
        )

    def _loaded(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        sys.stdout.write(f"{self.generation} {name} {len(binary)}\n")
        module = function = registers = 1
        spilled, threads = 0, 1024
        return module, function, registers, spilled, threads

    @classmethod
    def is_active(cls) -> bool:
        return True

    def launcher_cls(self, source: object, metadata: object) -> Callable[..., None]:
        return lambda *_: None

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.generation, 32)

    def get_current_device(self) -> int:
        return self.generation  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, name: str) -> str:
        return name

    def get_benchmarker(self) -> Any:
        raise NotImplementedError


@torch.inference_mode()
def run_all() -> None:
    """Each step that a GPU runs in Triton, with what it is given there."""
    photos, masks = (torch.zeros(size, dtype=torch.uint8) for size in ((2, 3, 600, 800), (2, 320, 320)))
    photo_kernels.squeezed(photos, 320)
    photo_kernels.full_alpha(masks, 600, 800)
    photo_kernels.spread_on_colour(photos, masks, torch.zeros(3, dtype=torch.uint8))
    below, beside = (torch.zeros(1, 64, side, side, dtype=torch.half) for side in (16, 32))
    kernels.halved(kernels.joined(below, beside))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        driver.set_active(AbsentGpu(int(each)))
        run_all()
