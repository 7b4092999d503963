"""From a picture to its mask: prepared as the network wants it, run on the device asked for, spread to 0…255."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from schemas.errors import DeviceAbsent, OutOfMemory
from workers.networks.registry import Preparation
from workers.reduce import halved, squeezed

Pixels = npt.NDArray[np.uint8]


class Segmenter:
    """A network on a device. `segment` takes pictures of any size and gives masks of the network's own size."""

    def __init__(self, module: nn.Module, preparation: Preparation, device: torch.device) -> None:
        self.device = device
        self._preparation = preparation
        self.module = module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def halve(self, photo: Pixels) -> Pixels:
        """A photo (height × width × 3, sRGB) made about as small as the network can do with."""
        return halved(photo, self._preparation.side)

    def segment(self, photos: Sequence[Pixels]) -> list[Pixels]:
        """One mask, side × side, for each photo, which may be of any size; large ones are better halved first."""
        return self._masks(torch.from_numpy(np.stack([prepared(photo, self._preparation) for photo in photos])))

    def _masks(self, batch: torch.Tensor) -> list[Pixels]:
        """Masks of a prepared batch; where the device has not the memory for all of it, of one half after the other."""
        try:
            return self._run(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise OutOfMemory("The device has not enough memory for one image.") from None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._masks(batch[:half]) + self._masks(batch[half:])

    def _run(self, batch: torch.Tensor) -> list[Pixels]:
        with torch.inference_mode():
            output = self.module(batch.to(self.device).to(memory_format=torch.channels_last))
        raw = output.float().cpu().numpy()[:, 0]
        return [to_mask(each, self._preparation) for each in raw]


def prepared(photo: Pixels, wants: Preparation) -> npt.NDArray[np.float32]:
    """3 × side × side, as the network was trained."""
    small = squeezed(photo, wants.side)
    peak = max(float(small.max()), 1e-6) if wants.divide_by_peak else 255.0
    scale = 1.0 / (peak * np.asarray(wants.std, np.float32))
    shift = np.asarray(wants.mean, np.float32) / np.asarray(wants.std, np.float32)
    values = small.astype(np.float32) * scale.astype(np.float32) - shift
    return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)


def to_mask(raw: npt.NDArray[np.float32], wants: Preparation) -> Pixels:
    """The network's output as 0…255. A flat one, which has nothing to be stretched by, is taken as it is."""
    low, high = (float(raw.min()), float(raw.max())) if wants.stretch else (0.0, 1.0)
    if high - low < 1e-6:
        low, high = 0.0, 1.0
    return cast(Pixels, np.clip((raw - low) * (255.0 / (high - low)) + 0.5, 0, 255).astype(np.uint8))


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
