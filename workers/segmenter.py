"""From pictures to their masks: prepared as the network wants them, run on the device asked for, spread to 0…255."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from schemas.errors import BgbatchError, DeviceAbsent, DeviceBroken, NotCompiled, OutOfMemory
from workers.graphs import Graph
from workers.networks.registry import Preparation
from workers.reduce import halved, squeezed
from workers.running import Running

Pixels = npt.NDArray[np.uint8]


class Segmenter:
    """A network on a device. `segment` takes pictures of any size and gives masks of the network's own size."""

    def __init__(
        self, module: nn.Module, preparation: Preparation, device: torch.device, running: Running | None = None
    ) -> None:
        self.device = device
        self.running = running or Running()
        self.preparation = preparation
        self.module = module.to(device, self.running.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._run: Callable[[Tensor], Tensor] = self._whole
        if self.running.compiled:
            self._run = torch.compile(self._whole, dynamic=False)

    def halve(self, photo: Pixels) -> Pixels:
        """A photo (height × width × 3, sRGB) made about as small as the network can do with."""
        return halved(photo, self.preparation.side)

    def squeeze(self, photo: Pixels) -> Pixels:
        """A photo of any size as side × side × 3; large ones are better halved first."""
        return squeezed(photo, self.preparation.side)

    def segment(self, photos: Sequence[Pixels]) -> list[Pixels]:
        """One mask, side × side, for each photo, which may be of any size.

        Raises `OutOfMemory` when one photo alone is too much, `DeviceBroken` when nothing can be run there any more.
        """
        images = torch.from_numpy(np.stack([self.squeeze(photo) for photo in photos]))
        return [mask.numpy() for mask in self.masks(images).cpu()]

    def masks(self, images: Tensor) -> Tensor:
        """Masks, N × side × side of 0…255 and on the device, of N × side × side × 3 of 0…255. Raises as `segment`."""
        batch = self.running.batch
        return torch.cat([self._masks(images[start : start + batch]) for start in range(0, len(images), batch)])

    def warm_up(self) -> None:
        """Compile, if it is to be, and run the largest batch that will be met. Raises `NotCompiled`."""
        side = self.preparation.side
        images = torch.zeros((self.running.batch, side, side, 3), dtype=torch.uint8, device=self.device)
        try:
            self.masks(images)
        except BgbatchError:
            raise
        except Exception as error:  # of any kind: Triton lets through what a compiler, a disk or a loader says
            if not self.running.compiled:
                raise
            raise NotCompiled(
                f"The network could not be compiled here ({type(error).__name__}). Install a C compiler such as "
                "gcc and Python's headers (python3-dev), see that the folder BGBATCH_COMPILED_IN can be written, or "
                "set BGBATCH_COMPILED=false."
            ) from error
        if self.running.compiled and self.device.type == "cuda":
            self._record(images)

    def _record(self, images: Tensor) -> None:
        """Where the memory is short it is run as it comes, and then in halves."""
        try:
            with torch.inference_mode():
                self._run = Graph(self._run, images)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()

    def _masks(self, images: Tensor, is_short: bool = False) -> Tensor:
        """Of one batch; where the device is short of memory, of one half after the other, and not filled up."""
        try:
            return self._at_once(images, is_short)
        except torch.OutOfMemoryError:
            if len(images) == 1 and (is_short or not self.running.compiled):
                raise OutOfMemory("The device has not enough memory for one image.") from None
        except RuntimeError as error:
            if is_broken(error):
                raise DeviceBroken("The device does not calculate any more in this process.") from None
            raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = max(1, len(images) // 2)
        return torch.cat([self._masks(some, is_short=True) for some in torch.split(images, half)])

    def _at_once(self, images: Tensor, is_short: bool) -> Tensor:
        many = len(images)
        size = self.running.batch if self.running.compiled and not is_short else many  # whatever fills it up
        with torch.inference_mode():
            batch = torch.empty((size, *images.shape[1:]), dtype=images.dtype, device=self.device)
            batch[:many] = images
            return (self._whole if is_short else self._run)(batch)[:many]

    def _whole(self, images: Tensor) -> Tensor:
        """From N × side × side × 3 of 0…255 to masks, N × side × side of 0…255, on the device."""
        batch = normalised(images, self.preparation, self.running.dtype)
        return spread(self.module(batch.contiguous(memory_format=torch.channels_last))[:, 0], self.preparation)


def normalised(images: Tensor, wants: Preparation, dtype: torch.dtype = torch.float32) -> Tensor:
    """N × side × side × 3 of 0…255 as N × 3 × side × side, as the network was trained."""
    values = images.float()
    peak = values.amax((1, 2, 3), keepdim=True).clamp(min=1e-6) if wants.divide_by_peak else 255.0
    std = values.new_tensor(wants.std)
    return (values * (1.0 / (peak * std)) - values.new_tensor(wants.mean) / std).to(dtype).permute(0, 3, 1, 2)


def spread(raw: Tensor, wants: Preparation) -> Tensor:
    """The network's outputs, N × side × side, as 0…255. A flat one, with nothing to be stretched by, stays as it is."""
    raw = raw.float()
    low, high = torch.zeros_like(raw[:, :1, :1]), torch.ones_like(raw[:, :1, :1])
    if wants.stretch:
        least, most = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
        is_flat = most - least < 1e-6
        low, high = torch.where(is_flat, low, least), torch.where(is_flat, high, most)
    return ((raw - low) * (255.0 / (high - low)) + 0.5).clamp(0, 255).to(torch.uint8)


def is_broken(error: RuntimeError) -> bool:
    """Whether the error is one after which a CUDA context stays broken until its process ends."""
    said = str(error).lower()  # torchvision shouts
    is_of_the_device = isinstance(error, getattr(torch, "AcceleratorError", ())) or "cuda error" in said  # torch 2.8
    return is_of_the_device and "out of memory" not in said  # so says the host's pinned memory, too


def find_device(name: str) -> torch.device:
    """The device, which must be there. Raises `DeviceAbsent`: a GPU never becomes a CPU in silence."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceAbsent("There is no device of that name. Choose cpu, cuda or cuda:N.") from None
    if device.type == "cpu":
        return device
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count():
        return device
    raise DeviceAbsent(
        f"The device {device} was asked for and is not on this machine. Install its driver and a torch for it, "
        "or set BGBATCH_DEVICE=cpu."
    )
