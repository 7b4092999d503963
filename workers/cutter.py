"""One source to one cutout: decode, segment, refine, put together, encode. An actor holds one cutter for its life."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from schemas.errors import WeightsInvalid
from schemas.options import CutoutOptions, Format
from schemas.results import Scores
from store.settings import Settings
from workers.decode import Limits, Picture, decode
from workers.encode import encode, write_zip
from workers.foreground import despilled
from workers.framing import Frame, frame_for, through
from workers.memory import keep_freed_memory
from workers.networks.eight_bits import can_run_here, in_eight_bits, ranges_beside
from workers.networks.own import load_own
from workers.networks.registry import Preparation, find_network
from workers.networks.weights import load_weights, weights_path
from workers.png import write_png
from workers.refine import refined
from workers.scores import flags, score
from workers.segmenter import Segmenter, find_device
from workers.shadow import with_shadow
from workers.sizes import fitted

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """A finished item. `width`, `height`: of the cutout; `mask_png`: 8-bit gray, upright, of the source's full size."""

    file: bytes
    width: int
    height: int
    source_width: int
    source_height: int
    scores: Scores
    flags: tuple[str, ...]
    mask_png: bytes | None


class Cutter:
    """A network, warm on its device, and the limits on what it takes."""

    def __init__(self, segmenter: Segmenter, network: str, weights_sha256: str, limits: Limits) -> None:
        self.network = network
        self.weights_sha256 = weights_sha256
        self.device = str(segmenter.device)
        self.limits = limits
        self.segmenter = segmenter

    def cut(self, source: bytes, options: CutoutOptions, want_mask: bool, background: bytes | None = None) -> Cut:
        """The cutout of `source`. Raises an `ItemError` when the source is at fault, and only then.

        `background`: the photo that `options.bg_image` names.
        """
        picture = decode(source, self.limits)
        small = self.segmenter.halve(picture.rgb)
        mask = self.segmenter.segment([small])[0]
        return self.finish(source, picture, small, mask, options, want_mask, background)

    def finish(
        self,
        source: bytes,
        picture: Picture,
        small: Pixels,
        mask: Pixels,
        options: CutoutOptions,
        want_mask: bool,
        background: bytes | None = None,
    ) -> Cut:
        """All that comes after the network. `small`: the picture as the network was given it."""
        alpha = _full_alpha(mask, picture)
        if options.refine:
            alpha = refined(picture.rgb, alpha)
        frame = frame_for(alpha, options)
        width, height = fitted(frame.width, frame.height, options.size.max_pixels)
        scores = score(mask, small)
        return Cut(
            file=self._file(source, picture, alpha, frame, (width, height), options, background),
            width=width,
            height=height,
            source_width=picture.width,
            source_height=picture.height,
            scores=scores,
            flags=flags(scores),
            mask_png=write_png(alpha) if want_mask else None,
        )

    def _file(
        self,
        source: bytes,
        picture: Picture,
        alpha: Pixels,
        frame: Frame,
        size: tuple[int, int],
        options: CutoutOptions,
        background: bytes | None,
    ) -> bytes:
        if options.format is Format.ZIP:
            return write_zip(source, alpha)
        rgb, alpha = through(frame, picture.rgb, *size), through(frame, alpha, *size)
        if options.despill:
            rgb = despilled(rgb, alpha)
        if options.shadow:
            rgb, alpha = with_shadow(rgb, alpha)
        behind = decode(background, self.limits).rgb if background is not None else None
        return encode(rgb, alpha, options, behind)

    def warm_up(self) -> None:
        """Compile and load all that the first item would have to wait for."""
        ramp = np.linspace(0, 255, 64 * 64 * 3).astype(np.uint8).reshape(64, 64, 3)
        for options in (CutoutOptions(), CutoutOptions(format=Format.JPG)):
            self.cut(write_png(ramp), options, want_mask=True)


def open_cutter(settings: Settings) -> Cutter:
    """The cutter that the settings name, warm. Raises `DeviceAbsent`, `WeightsInvalid`."""
    device = find_device(settings.device)
    module, wants, digest = _network(settings)
    keep_freed_memory()
    cv2.setNumThreads(1)
    if device.type == "cpu":  # actors share the CPUs: as many threads each as there are CPUs for one
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings.actors) if settings.actors else 1)
    limits = Limits(pixels=int(settings.max_megapixels * 1e6), bytes=int(settings.max_megabytes * 1e6))
    cutter = Cutter(Segmenter(module, wants, device), settings.network, digest, limits)
    cutter.warm_up()
    return cutter


def _network(settings: Settings) -> tuple[nn.Module, Preparation, str]:
    """The network that the settings name, what it wants to be fed, and the hash of its weights."""
    if settings.network == "own":
        if settings.weights is None:
            raise WeightsInvalid("BGBATCH_NETWORK=own needs the network's file in BGBATCH_WEIGHTS.")
        return load_own(settings.weights)
    network = find_network(settings.network)
    path = weights_path(network, settings.weights)
    module, digest = load_weights(network, path)
    if settings.device == "cpu" and not settings.exact and can_run_here():
        module = in_eight_bits(module, ranges_beside(path))
    return module, network.preparation, digest


def _full_alpha(mask: Pixels, picture: Picture) -> Pixels:
    """The mask in the picture's size. What the source itself left transparent stays so."""
    alpha = np.asarray(cv2.resize(mask, (picture.width, picture.height), interpolation=cv2.INTER_CUBIC), np.uint8)
    if picture.alpha is None:
        return alpha
    return np.asarray(cv2.multiply(alpha, picture.alpha, scale=1 / 255), np.uint8)
