"""One source to one cutout: decode, segment, refine, put together, encode. An actor holds one cutter for its life."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from schemas.errors import ItemError, NotCompiled
from schemas.options import WHITE, CutoutOptions, Format
from store.settings import Settings
from workers.alike import Measure, measured, setting_for
from workers.compiling import keep_compiled_in
from workers.composite import on_colour
from workers.decode import Limits, Picture, decode
from workers.device_lane import DeviceLane, Jpegs, Made, Taken, jpegs_on
from workers.encode import encode, write_zip
from workers.foreground import despilled
from workers.framing import Frame, colours_through, frame_for, through
from workers.lanes import ONE_BY_ONE, Pace
from workers.memory import keep_freed_memory
from workers.networks.eight_bits import can_run_here, in_eight_bits, ranges_beside
from workers.networks.on_cpu import for_cpu
from workers.networks.own import load_own
from workers.networks.registry import Preparation, find_network
from workers.networks.weights import load_weights
from workers.networks.weights_file import weights_file
from workers.order import Cut, Opened, Order
from workers.png import write_png
from workers.refine import refined
from workers.running import MOST_AT_ONCE, Running, pace_on, running_on
from workers.scores import cut_off, flags, in_gray, score
from workers.segmenter import Segmenter, find_device
from workers.shadow import with_shadow
from workers.sizes import fitted
from workers.streams import Streams

Pixels = npt.NDArray[np.uint8]


class Cutter:
    """A network, warm on its device, and the limits on what it takes.

    An item goes through `open`, `segment` with others, and `finish`; each may be called in a thread of its own.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        network: str,
        weights_sha256: str,
        limits: Limits,
        pace: Pace = ONE_BY_ONE,
        jpegs: Jpegs | None = None,
    ) -> None:
        self.network = network
        self.weights_sha256 = weights_sha256
        self.device = str(segmenter.device)
        self.limits = limits
        self.segmenter = segmenter
        self.pace = pace
        self._streams = Streams(segmenter.device, max(1, pace.drivers))
        self._lane = DeviceLane(segmenter, jpegs, limits) if jpegs is not None else None

    def cut(self, source: bytes, options: CutoutOptions, want_mask: bool, background: bytes | None = None) -> Cut:
        """The cutout of `source`. Raises an `ItemError` when the source is at fault, or the background.

        `background`: the photo that `options.bg_image` names.
        """
        behind = self.backdrop(background) if background is not None else None
        (one,) = self.segment([self.open(Order(source, options, want_mask))])
        if options.consistent:  # alone in its folder
            one = replace(one, order=replace(one.order, setting=setting_for([self.measure(one)[0]])))
        return self.finish(one, behind)

    def backdrop(self, source: bytes) -> Pixels:
        """The photo that `bg_image` names, on white where it is transparent. Raises as `decode` does."""
        picture = decode(source, self.limits)
        return picture.rgb if picture.alpha is None else on_colour(picture.rgb, picture.alpha, WHITE)

    def measure(self, done: Opened | Taken | Made) -> tuple[Measure, Pixels]:
        """Where the subject of a segmented photo is, and its mask, which a later `Order` may bring along."""
        if not isinstance(done, Opened) or done.mask is None:
            raise ValueError("this has not been segmented")
        return measured(_full_alpha(done.mask, done.picture)), done.mask

    def open(self, order: Order) -> Opened | Taken:
        """The source decoded, or its header read where the device decodes it. Raises an `ItemError` of the source's."""
        taken = self._lane.take(order) if self._lane is not None and order.mask is None else None
        return taken if taken is not None else self._open_here(order)

    def segment(self, opened: Sequence[Opened | Taken | Made]) -> list[Opened | Taken | Made]:
        """The same with their masks, in the same order. Raises `OutOfMemory` and `DeviceBroken`.

        One that is damaged is left without, to be segmented alone; then its `ItemError` is raised.
        """
        with self._streams.one():
            return self._segment(opened)

    def _segment(self, opened: Sequence[Opened | Taken | Made]) -> list[Opened | Taken | Made]:
        there = [each for each in opened if isinstance(each, Taken)]
        made = iter(self._lane.make(there) if self._lane is not None else ())
        is_alone = len(opened) == 1
        both = [(next(made) or self._on_host(each, is_alone)) if isinstance(each, Taken) else each for each in opened]
        bare = [each.squeezed for each in both if isinstance(each, Opened) and each.mask is None]
        masks = iter(self.segmenter.segment(bare) if bare else ())
        return [
            replace(each, mask=next(masks)) if isinstance(each, Opened) and each.mask is None else each for each in both
        ]

    def finish(self, done: Opened | Taken | Made, behind: Pixels | None = None) -> Cut:
        """All that comes after the network. `behind`: the backdrop that `options.bg_image` names."""
        if isinstance(done, Made):
            return done.cut()
        if isinstance(done, Taken) or done.mask is None:
            raise ValueError("this has not been segmented")
        order, picture = done.order, done.picture
        alpha = done.alpha if done.alpha is not None else _full_alpha(done.mask, picture)
        if order.options.refine:
            alpha = refined(picture.rgb, alpha)
        frame = frame_for(alpha, order.options, order.setting)
        given = order.setting if order.setting is not None and frame.is_set else frame
        width, height = fitted(given.width, given.height, order.options.size.max_pixels)
        shown = _shown(done.mask, picture)
        scores = score(shown, done.gray)
        return Cut(
            file=self._file(order, picture, alpha, frame, (width, height), behind),
            width=width,
            height=height,
            source_width=picture.width,
            source_height=picture.height,
            scores=scores,
            flags=flags(scores, cut_off(shown))
            + (("not_consistent",) if order.options.consistent and not frame.is_set else ()),
            mask_png=write_png(alpha) if order.want_mask else None,
        )

    def _on_host(self, taken: Taken, is_alone: bool) -> Opened | Taken:
        """What the device could not do. What the host cannot either stays as it is: the fault is found once alone."""
        try:
            return self._open_here(taken.order)
        except ItemError:
            if is_alone:
                raise
            return taken

    def _open_here(self, order: Order) -> Opened:
        picture = decode(order.source, self.limits)
        small = self.segmenter.halve(picture.rgb)
        return Opened(order, picture, in_gray(small), self.segmenter.squeeze(small), order.mask)

    def _file(
        self,
        order: Order,
        picture: Picture,
        alpha: Pixels,
        frame: Frame,
        size: tuple[int, int],
        behind: Pixels | None,
    ) -> bytes:
        options = order.options
        if options.format is Format.ZIP:
            return write_zip(order.source, alpha)
        rgb, alpha = colours_through(frame, picture.rgb, picture.alpha, *size), through(frame, alpha, *size)
        if options.despill:
            rgb = despilled(rgb, alpha)
        if options.shadow:
            rgb, alpha = with_shadow(rgb, alpha)
        return encode(rgb, alpha, options, behind)

    def warm_up(self) -> None:
        """Compile and load all that the first item would have to wait for."""
        with self._streams.one():  # which makes the thread's own device ours: what is written in Triton runs on that
            self.segmenter.warm_up()
            if self._lane is not None:
                self._lane.warm_up()
        ramp = np.linspace(0, 255, 8 * 8 * 3).astype(np.uint8).reshape(8, 8, 3)  # within any limit
        for options in (CutoutOptions(), CutoutOptions(format=Format.JPG)):
            self.cut(write_png(ramp), options, want_mask=True)


def open_cutter(settings: Settings) -> Cutter:
    """The cutter that the settings name, warm. Raises `DeviceAbsent`, `WeightsInvalid`, `NotCompiled`."""
    device = find_device(settings.device)
    module, wants, digest, running = _network(settings, device)
    keep_freed_memory()
    cv2.setNumThreads(1)
    cpus = os.cpu_count() or 1
    if device.type == "cpu":  # actors share the CPUs: as many threads each as there are CPUs for one
        torch.set_num_threads(max(1, cpus // settings.actors) if settings.actors else 1)
    keep_compiled_in(settings.compiled_folder)
    limits = Limits(pixels=settings.max_pixels, bytes=settings.max_bytes)
    pace = pace_on(device, running, cpus, round(1 / settings.gpu_share))
    segmenter = Segmenter(module, wants, device, running)
    cutter = Cutter(segmenter, settings.network, digest, limits, pace, jpegs_on(device))
    cutter.warm_up()
    return cutter


def _network(settings: Settings, device: torch.device) -> tuple[nn.Module, Preparation, str, Running]:
    """The network that the settings name, what it wants to be fed, the hash of its weights, and how it is run."""
    path = weights_file(settings.network, settings.weights)
    if settings.network == "own":
        module, wants, digest, contract = load_own(path)
        half = contract.half and not settings.exact
        return module, wants, digest, running_on(device, wants.side, half, contract.batch, compiled=False)
    network = find_network(settings.network)
    module, digest = load_weights(network, path)
    wants = network.preparation
    if device.type == "cpu" and not settings.exact and can_run_here():
        module = in_eight_bits(module, ranges_beside(path))
    if device.type == "cpu":
        module = for_cpu(module)
    elif settings.compiled:
        module = _on_gpu(module)
    return module, wants, digest, running_on(device, wants.side, not settings.exact, MOST_AT_ONCE, settings.compiled)


def _on_gpu(module: nn.Module) -> nn.Module:
    try:
        from workers.networks.on_gpu import OnGpu
    except ImportError:  # a torch for a GPU brings it along, but not on every system
        raise NotCompiled("Triton is not here. Install it, or set BGBATCH_COMPILED=false.") from None
    return OnGpu(module)


def _full_alpha(mask: Pixels, picture: Picture) -> Pixels:
    """The mask in the picture's size. What the source itself left transparent stays so."""
    alpha = np.asarray(cv2.resize(mask, (picture.width, picture.height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return alpha if picture.alpha is None else _times(alpha, picture.alpha)


def _shown(mask: Pixels, picture: Picture) -> Pixels:
    """The mask, in its own size, without what the source itself left transparent: so it is scored."""
    if picture.alpha is None:
        return mask
    return _times(mask, np.asarray(cv2.resize(picture.alpha, mask.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8))


def _times(alpha: Pixels, other: Pixels) -> Pixels:
    return np.asarray(cv2.multiply(alpha, other, scale=1 / 255), np.uint8)
