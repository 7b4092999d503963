"""The way of a JPEG that stays on the GPU: decoded by nvJPEG, segmented, and, if a JPEG is wanted, put together and
encoded there too; only files cross to the host and back. Of a plain PNG the host only has to deflate the rows. For any
other output its pixels come to the host once. Soft edges are worked out there for all of them; only what is framed or
scaled down is despilled on the host, as it is then, and photos that are to be `consistent` are refined there, too.

A photo that this cannot do, or fails at, takes the ordinary way: it decides what is damaged, and why.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import accumulate, pairwise, product
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from schemas.errors import DeviceBroken
from schemas.options import WHITE, Channels, CutoutOptions, Format, Rgba
from workers.colour import is_srgb
from workers.decode import Limits, Picture, open_header, orientation_of, profile_of
from workers.device_edges import corrected, despilled, refined, worked_out
from workers.device_pixels import (
    HALVING,
    full_alpha,
    halved,
    in_gray,
    on_colour,
    png_rows,
    spread_on_colour,
    squeezed,
    upright,
)
from workers.encode import JPEG_QUALITY, as_the_format_can
from workers.jpeg_file import up_to_its_end
from workers.order import Cut, Opened, Order
from workers.png import write_png, write_rows
from workers.scores import SCORED_SIDE, cut_off, flags, score
from workers.segmenter import Segmenter, is_broken
from workers.sizes import fitted
from workers.streams import used_here, wait_for

Pixels = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)

TRANSPARENT: Rgba = (0, 0, 0, 0)

_ANY_SIZE = (1200, 1600)
"""Height and width of a photo to compile with: a step is compiled for any. It is so large that what soft edges are
worked out on is smaller, else the step would be compiled for pictures of one size."""

_PIXELS_AT_ONCE = 32_000_000
"""Of photos that are worked on at once: 16 bytes of the device's memory for each, and 64 where nothing is compiled."""


class Jpegs(Protocol):
    """JPEG files to pixels on a device (3 × height × width of 0…255), and back. Errors are `RuntimeError`."""

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """Each as RGB, not turned."""

    def encode(self, photos: Sequence[Tensor]) -> list[bytes]:
        """Each as a file."""


class TorchvisionJpegs:
    """torchvision's: nvJPEG on a GPU.

    It works on streams of its own, which wait for nothing of ours: it could read a photo that is not yet put together,
    or write where another is still being read. So what was asked of the device is done before it is called. What it
    still does when it returns is waited for by the stream alone that was current when it was first called (torchvision
    keeps that one): made here, that is the default stream, and whoever reads a file waits for that.
    """

    def __init__(self, device: torch.device) -> None:
        from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

        self._device, self._mode = device, ImageReadMode.RGB
        self._decode, self._encode = decode_jpeg, encode_jpeg

    def decode(self, files: Sequence[bytes]) -> list[Tensor]:
        """Each as RGB, not turned."""
        wait_for(self._device)
        tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return list(self._decode(tensors, mode=self._mode, device=self._device))

    def encode(self, photos: Sequence[Tensor]) -> list[bytes]:
        """Each as a file."""
        whole = [photo.contiguous() for photo in photos]
        wait_for(self._device)
        files = self._encode(whole, quality=JPEG_QUALITY)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).wait_stream(torch.cuda.default_stream(self._device))
        (together,) = _on_host(torch.cat(files))  # each way to the host costs as much as a file
        ends = [*accumulate(len(file) for file in files)]
        return [together[start:end].tobytes() for start, end in pairwise([0, *ends])]


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
    """A JPEG that goes this way; nothing of it is decoded yet. `file`: its source, up to where the JPEG ends."""

    order: Order
    file: bytes
    orientation: int
    pixels: int


@dataclass(frozen=True)
class Made:
    """A photo that was put together on the device, and what the host needs to tell of it.

    Of a JPEG the file is made; of a PNG the `rows`, which are still to be deflated. `alpha`: only if it, or a
    neighbour's, was asked for.
    """

    order: Order
    file: bytes
    width: int
    height: int
    gray: Pixels
    mask: Pixels
    alpha: Pixels | None
    rows: Pixels | None = None

    def cut(self) -> Cut:
        """The finished item."""
        scores = score(self.mask, self.gray)
        shown = np.count_nonzero(self.mask) / self.mask.size
        return Cut(
            file=self.file if self.rows is None else write_rows(self.rows, shown),
            width=self.width,
            height=self.height,
            source_width=self.width,
            source_height=self.height,
            scores=scores,
            flags=flags(scores, cut_off(self.mask)),
            mask_png=write_png(self.alpha) if self.alpha is not None and self.order.want_mask else None,
        )


class DeviceLane:
    """Takes the JPEGs that it can do, and makes some at a time."""

    def __init__(self, segmenter: Segmenter, jpegs: Jpegs, limits: Limits) -> None:
        self._segmenter, self._jpegs, self._limits = segmenter, jpegs, limits
        self._halving, self._in_gray, self._png_rows = HALVING, in_gray, png_rows
        self._squeezed, self._full_alpha, self._spread_on_colour = squeezed, full_alpha, spread_on_colour
        self._worked_out, self._corrected, self._on_colour = worked_out, corrected, on_colour
        if segmenter.running.compiled:  # what reads and writes each pixel once should not do it in six steps
            fused = partial(torch.compile, dynamic=True)
            self._halving = {by: fused(step) for by, step in HALVING.items()}
            self._in_gray, self._png_rows = fused(in_gray), fused(png_rows)
            self._worked_out, self._corrected, self._on_colour = fused(worked_out), fused(corrected), fused(on_colour)
            if segmenter.device.type == "cuda":
                from workers import photo_kernels

                self._squeezed = photo_kernels.squeezed
                self._full_alpha, self._spread_on_colour = photo_kernels.full_alpha, photo_kernels.spread_on_colour

    def warm_up(self) -> None:
        """Compile, if it is to be, all steps that a photo may take, alone and with others.

        What fails here will fail with every photo, each of which then takes the ordinary way: that is said in the log.
        """
        photo = torch.zeros((3, *_ANY_SIZE), dtype=torch.uint8, device=self._segmenter.device)
        (file,) = self._jpegs.encode([photo])
        for many, format, edges in product((1, 2), (Format.JPG, Format.PNG), (False, True)):
            order = Order(file, CutoutOptions(format=format, refine=edges, despill=edges), want_mask=True)
            if None in self.make([Taken(order, file, 1, photo[0].numel())] * many):
                _log.warning("a photo cannot be made as %s on the device: the CPU makes them, and is slower", format)
        with torch.inference_mode():
            for many, step in product((1, 2), self._halving.values()):  # which of them a photo takes hangs on its size
                step(torch.stack([photo] * many))

    def take(self, order: Order) -> Taken | None:
        """The order, if its source is a whole JPEG in sRGB. Raises as `decode` does for what its header tells."""
        header = open_header(order.source, self._limits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            is_plain = _is_plain_jpeg(header) and is_srgb(profile_of(order.source, header))
            file = up_to_its_end(order.source) if is_plain else None
            if file is None:
                return None
            return Taken(order, file, orientation_of(header), header.width * header.height)

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

    def _together(self, taken: Sequence[Taken]) -> list[Made | Opened]:
        side = self._segmenter.preparation.side
        stacks = _stacked(taken, self._jpegs.decode([each.file for each in taken]))
        smalls = [halved(stack.photos, side, self._halving) for stack in stacks]
        images = [self._squeezed(small, side) for small in smalls]
        masks = torch.split(self._segmenter.masks(torch.cat(images)), [len(each) for each in images])
        opened: dict[int, Opened] = {}
        made: dict[int, Made] = {}
        jpegs: dict[int, Tensor] = {}
        for stack, small, image, mask in zip(stacks, smalls, images, masks, strict=True):
            orders = [taken[place].order for place in stack.places]
            gray = self._in_gray(halved(small, SCORED_SIDE, self._halving))
            height, width = stack.photos.shape[-2:]
            if stack.colour is None:
                opened |= zip(stack.places, self._opened(stack, orders, gray, image, mask), strict=True)
                continue
            is_png, is_alpha_wanted = stack.colour == TRANSPARENT, any(order.want_mask for order in orders)
            is_whole = is_png or is_alpha_wanted or stack.has_edges
            alpha = self._full_alpha(mask, height, width) if is_whole else None
            photos, alpha = (stack.photos, None) if alpha is None else self._with_edges(stack, alpha)
            if not is_png:
                behind = used_here(_on_device(stack.colour, mask.device))
                if alpha is not None and stack.has_edges:
                    put = self._on_colour(photos, alpha, behind)
                else:
                    put = self._spread_on_colour(photos, mask, behind)
                jpegs |= zip(stack.places, put, strict=True)
            none: list[None] = [None] * len(orders)
            (rows,) = _on_host(self._png_rows(photos, alpha)) if is_png and alpha is not None else (none,)
            (alphas,) = _on_host(alpha) if is_alpha_wanted and alpha is not None else (none,)
            for place, order, *there in zip(stack.places, orders, *_on_host(gray, mask), alphas, rows, strict=True):
                made[place] = Made(order, b"", width, height, *there)
        for place, file in zip(jpegs, self._jpegs.encode([*jpegs.values()]) if jpegs else (), strict=True):
            made[place] = replace(made[place], file=file)
        return [made.get(place) or opened[place] for place in range(len(taken))]

    def _opened(self, stack: _Stack, orders: list[Order], gray: Tensor, image: Tensor, mask: Tensor) -> list[Opened]:
        """What the host goes on with, and for each what it still has to do."""
        photos, alpha = stack.photos, None
        if stack.has_edges:
            photos, alpha = self._with_edges(stack, self._full_alpha(mask, *photos.shape[-2:]))
        there = _on_host(_colours_last(photos), gray, image, mask, *(() if alpha is None else (alpha,)))
        return [
            Opened(stack.left_of(order), Picture(rgb, None), *rest)
            for order, rgb, *rest in zip(orders, *there, strict=True)
        ]

    def _with_edges(self, stack: _Stack, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Photos and alpha, with soft edges worked out and the old background taken out of them if that is wanted."""
        photos = stack.photos
        if stack.is_refined:
            alpha = refined(photos, alpha, self._worked_out)
        return (despilled(photos, alpha, self._corrected) if stack.is_despilled else photos), alpha


def _is_plain_jpeg(header: Image.Image) -> bool:
    """Whether it has three channels, luma and two differences of colour.

    Few hold red, green and blue. libjpeg tells those by Adobe's marker, or by the letters that its channels are called;
    nobody says that nvJPEG does.
    """
    if not isinstance(header, JpegImageFile) or header.mode != "RGB":
        return False
    return header.info.get("adobe_transform", 1) == 1 and [channel[0] for channel in header.layer] != [*b"RGB"]


@dataclass(frozen=True)
class _Stack:
    """Photos of one size, N × 3 × height × width, that are to come out alike; `places`: which they are.

    `colour`: that they lie on, `TRANSPARENT` included; None if the host goes on with them.
    """

    places: list[int]
    photos: Tensor
    colour: Rgba | None
    is_refined: bool
    is_despilled: bool

    @property
    def has_edges(self) -> bool:
        """Whether more than the mask decides what they look like."""
        return self.is_refined or self.is_despilled

    def left_of(self, order: Order) -> Order:
        """The order without what is done here."""
        options = order.options
        left = {"refine": options.refine and not self.is_refined, "despill": options.despill and not self.is_despilled}
        return replace(order, options=options.model_copy(update=left))


def _stacked(taken: Sequence[Taken], files: Sequence[Tensor]) -> list[_Stack]:
    """What can be done at once, is: a step costs a GPU as much time to begin as many photos take."""
    alike: dict[tuple[torch.Size, Rgba | None, bool, bool], list[int]] = defaultdict(list)
    photos = [upright(file, each.orientation) for file, each in zip(files, taken, strict=True)]
    for place, (photo, each) in enumerate(zip(photos, taken, strict=True)):
        options, size = each.order.options, (photo.shape[-1], photo.shape[-2])
        is_refined = options.refine and not options.consistent  # such a photo is measured here, and cut on the host
        is_despilled = options.despill and _is_whole(options, *size)
        alike[photo.shape, _colour_under(options, *size), is_refined, is_despilled].append(place)
    stacks = []
    for (shape, colour, is_refined, is_despilled), places in alike.items():
        many = max(1, _PIXELS_AT_ONCE // shape[-2:].numel())
        for start in range(0, len(places), many):
            some = places[start : start + many]
            together = torch.stack([photos[place] for place in some])
            stacks.append(_Stack(some, together, colour, is_refined, is_despilled))
    return stacks


def _colour_under(options: CutoutOptions, width: int, height: int) -> Rgba | None:
    """What lies under the cutout of a photo of this size: an opaque colour in a JPEG, nothing (`TRANSPARENT`) in a PNG.

    None when something else is wanted, which the device does not make.
    """
    is_other = options.shadow or options.channels is not Channels.RGBA or options.bg_image is not None
    if is_other or not _is_whole(options, width, height):
        return None
    if options.format is Format.JPG:
        return as_the_format_can(options.background or WHITE, Format.JPG)
    return TRANSPARENT if options.format is Format.PNG and options.background is None else None


def _is_whole(options: CutoutOptions, width: int, height: int) -> bool:
    """Whether the cutout of a photo of this size shows all of it, pixel by pixel."""
    is_framed = options.crop or options.consistent
    return not is_framed and fitted(width, height, options.size.max_pixels) == (width, height)


@lru_cache(maxsize=64)
def _on_device(colour: Rgba, device: torch.device) -> Tensor:
    """To bring it there anew, the thread would have to wait for all that it asked of the device before."""
    return torch.tensor(colour[:3], dtype=torch.uint8, device=device)


def _colours_last(photos: Tensor) -> Tensor:
    """N × 3 × height × width as N × height × width × 3."""
    return photos.movedim(-3, -1)


def _on_host(*values: Tensor) -> list[Pixels]:
    """All are on their way before the first is waited for."""
    copies = [each.contiguous().to("cpu", non_blocking=True) for each in values]
    wait_for(values[0].device)
    return [np.asarray(copy.numpy(), np.uint8) for copy in copies]
