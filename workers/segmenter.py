"""From pictures to their masks: prepared as the network wants them, run on the device asked for, spread to 0…255."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from schemas.errors import DeviceAbsent, DeviceBroken, NotCompiled, OutOfMemory
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
        self._run = torch.compile(self.module, dynamic=False) if self.running.compiled else self.module

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
        """Run, and compile, every size of batch that will be met. Raises `NotCompiled`."""
        side = self.preparation.side
        for size in self.running.sizes if self.running.compiled else (self.running.batch,):
            try:
                self.masks(torch.zeros((size, side, side, 3), dtype=torch.uint8))
            except RuntimeError as error:
                if not self.running.compiled:
                    raise
                raise NotCompiled(
                    f"The network could not be compiled here ({type(error).__name__}). Install a C compiler such as "
                    "gcc, or set BGBATCH_COMPILED=false."
                ) from error

    def _masks(self, images: Tensor) -> Tensor:
        """Of one batch; where the device has not the memory for all of it, of one half after the other."""
        try:
            return self._at_once(images)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise OutOfMemory("The device has not enough memory for one image.") from None
        except RuntimeError as error:
            if is_broken(error):
                raise DeviceBroken("The device does not calculate any more in this process.") from None
            raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(images) // 2
        return torch.cat((self._masks(images[:half]), self._masks(images[half:])))

    def _at_once(self, images: Tensor) -> Tensor:
        many = len(images)
        with torch.inference_mode():
            batch = normalised(images.to(self.device), self.preparation, self.running.dtype)
            missing = self.running.size_for(many) - many
            if missing:
                batch = torch.cat((batch, batch[-1:].expand(missing, -1, -1, -1)))
            return spread(self._run(batch.contiguous(memory_format=torch.channels_last))[:many, 0], self.preparation)


def normalised(images: Tensor, wants: Preparation, dtype: torch.dtype = torch.float32) -> Tensor:
    """N × side × side × 3 of 0…255 as N × 3 × side × side, as the network was trained."""
    values = images.float()
    peak = values.amax((1, 2, 3), keepdim=True).clamp(min=1e-6) if wants.divide_by_peak else 255.0
    std = values.new_tensor(wants.std)
    return (values * (1.0 / (peak * std)) - values.new_tensor(wants.mean) / std).permute(0, 3, 1, 2).to(dtype)


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
    return isinstance(error, torch.AcceleratorError) or "cuda error" in str(error).lower()  # torchvision shouts


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
