"""The way of a JPEG that stays on the GPU: decoded by nvJPEG, segmented, and, if a JPEG is wanted, put together and
encoded there too; only files cross to the host and back. For any other output its pixels come to the host once.

A photo that this cannot do, or fails at, takes the ordinary way: it decides what is damaged, and why.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.errors import DeviceBroken
from schemas.options import WHITE, Channels, CutoutOptions, Format, Rgba
from workers.colour import is_srgb
from workers.decode import Limits, Picture, open_header, orientation_of
from workers.device_pixels import full_alpha, halved, on_colour, squeezed, upright
from workers.encode import JPEG_QUALITY, as_the_format_can
from workers.order import Cut, Opened, Order
from workers.png import write_png
from workers.scores import SCORED_SIDE, flags, score
from workers.segmenter import Segmenter, is_broken
from workers.sizes import fitted

Pixels = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)

_END = b"\xff\xd9"
"""How a whole JPEG ends."""


class Jpegs(Protocol):
    """JPEG files to pixels on a device (3 × height × width of 0…255), and back. Errors are `RuntimeError`."""

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """Each as RGB, not turned."""

    def encode(self, photos: Sequence[Tensor]) -> list[bytes]:
        """Each as a file."""


class TorchvisionJpegs:
    """torchvision's: nvJPEG on a GPU.

    It works on streams of its own, which wait for nothing of ours: it could read a photo that is not yet put together,
    or write where another is still being read. So what was asked of the device is done before it is called.
    """

    def __init__(self, device: torch.device) -> None:
        from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

        self._device, self._mode = device, ImageReadMode.RGB
        self._decode, self._encode = decode_jpeg, encode_jpeg

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """Each as RGB, not turned."""
        self._wait()
        tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return list(self._decode(tensors, mode=self._mode, device=self._device))

    def encode(self, photos: Sequence[Tensor]) -> list[bytes]:
        """Each as a file."""
        whole = [photo.contiguous() for photo in photos]
        self._wait()
        files = self._encode(whole, quality=JPEG_QUALITY)
        return [file.cpu().numpy().tobytes() for file in files]

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


def jpegs_on(device: torch.device) -> Jpegs | None:
    """nvJPEG, where the device is a GPU and torchvision (the extra `gpu`) is there; else None.

    A torchvision that was built without it is said in the log: JPEGs then cost CPU time as everything else does.
    """
    if device.type != "cuda" or find_spec("torchvision") is None:
        return None
    try:
        jpegs = TorchvisionJpegs(device)
        jpegs.decode(jpegs.encode([torch.zeros((3, 16, 16), dtype=torch.uint8, device=device)]))
    except (RuntimeError, ImportError, OSError) as error:  # another torch's, or without the device's libraries
        _log.warning("torchvision has no nvJPEG here (%s): JPEGs are decoded on the CPU", type(error).__name__)
        return None
    return jpegs


@dataclass(frozen=True)
class Taken:
    """A JPEG that goes this way; nothing of it is decoded yet."""

    order: Order
    orientation: int


@dataclass(frozen=True)
class Made:
    """A JPEG that was made on the device, and what the host needs to tell of it. `alpha`: only if it was asked for."""

    order: Order
    file: bytes
    width: int
    height: int
    small: Pixels
    mask: Pixels
    alpha: Pixels | None

    def cut(self) -> Cut:
        """The finished item."""
        scores = score(self.mask, self.small)
        return Cut(
            file=self.file,
            width=self.width,
            height=self.height,
            source_width=self.width,
            source_height=self.height,
            scores=scores,
            flags=flags(scores),
            mask_png=None if self.alpha is None else write_png(self.alpha),
        )


class DeviceLane:
    """Takes the JPEGs that it can do, and makes some at a time."""

    def __init__(self, segmenter: Segmenter, jpegs: Jpegs, limits: Limits) -> None:
        self._segmenter, self._jpegs, self._limits = segmenter, jpegs, limits

    def take(self, order: Order) -> Taken | None:
        """The order, if its source is a whole JPEG in sRGB. Raises as `decode` does for what its header tells."""
        header = open_header(order.source, self._limits)
        is_plain = header.format in ("JPEG", "MPO") and header.mode == "RGB" and is_srgb(header.info.get("icc_profile"))
        if not is_plain or not order.source.endswith(_END):
            return None
        return Taken(order, orientation_of(header))

    def make(self, taken: Sequence[Taken]) -> list[Made | Opened | None]:
        """Each made, or decoded and segmented, or None where it has to take the ordinary way. Raises `DeviceBroken`."""
        if not taken:
            return []
        try:
            with torch.inference_mode():
                return [*self._together(taken)]
        except RuntimeError as error:
            if is_broken(error):
                raise DeviceBroken("The device does not calculate any more in this process.") from None
        if len(taken) == 1:
            return [None]
        half = len(taken) // 2
        return self.make(taken[:half]) + self.make(taken[half:])

    def _together(self, taken: Sequence[Taken]) -> list[Made | Opened | None]:
        side = self._segmenter.preparation.side
        files = self._jpegs.decode([each.order.source for each in taken])
        photos = [upright(file, each.orientation) for file, each in zip(files, taken, strict=True)]
        smalls = [halved(photo, side) for photo in photos]
        images = [squeezed(small, side) for small in smalls]
        masks = self._segmenter.masks(torch.stack(images))
        done: list[Made | Opened | None] = []
        ready: list[Tensor] = []
        for each, photo, small, image, mask in zip(taken, photos, smalls, images, masks, strict=True):
            height, width = photo.shape[-2:]
            colour = colour_under(each.order.options, width, height)
            if colour is None:
                picture = Picture(_on_host(photo), None)
                done.append(Opened(each.order, picture, _scored(small), _host(image), _host(mask)))
                continue
            alpha = full_alpha(mask, height, width)
            ready.append(on_colour(photo, alpha, colour))
            kept = _host(alpha) if each.order.want_mask else None
            done.append(Made(each.order, b"", width, height, _scored(small), _host(mask), kept))
        files_made = iter(self._jpegs.encode(ready) if ready else ())
        return [replace(each, file=next(files_made)) if isinstance(each, Made) else each for each in done]


def colour_under(options: CutoutOptions, width: int, height: int) -> Rgba | None:
    """The opaque colour under the cutout of a photo of this size, if it is a JPEG and nothing else is asked for."""
    is_jpeg = options.format is Format.JPG and options.channels is Channels.RGBA and options.bg_image is None
    is_worked_on = options.crop or options.consistent or options.refine or options.despill or options.shadow
    if not is_jpeg or is_worked_on or fitted(width, height, options.size.max_pixels) != (width, height):
        return None
    return as_the_format_can(options.background or WHITE, Format.JPG)


def _scored(small: Tensor) -> Pixels:
    return _on_host(halved(small, SCORED_SIDE))


def _on_host(photo: Tensor) -> Pixels:
    return _host(photo.permute(1, 2, 0).contiguous())


def _host(values: Tensor) -> Pixels:
    return np.asarray(values.cpu().numpy(), np.uint8)
