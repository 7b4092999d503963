"""Colour profiles: everything becomes sRGB, so that Display P3 is not taken for it and does not turn dull.

The profile that most files carry is sRGB itself; those are left alone. A profile's name does not tell: many phones call
Display P3 "DCI-P3 D65 Gamut with sRGB Transfer".
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]

_DISPLAY_P3 = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
}
_ADOBE_RGB = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}
"""Colourants in the profile connection space (SMPTE EG 432-1; Adobe RGB (1998) 4.3.5.3; adapted to D50)."""

_ADOBE_GAMMA = 563 / 256

_SAME = 3
"""Levels of 255 that a profile may move a colour by and still be sRGB itself, as somebody else rounds it."""

_LARGE = 4_000_000
"""Bytes from which on a profile is not kept for the next photo: with 64 of the largest a worker would hold 2 GB."""

_PIPELINES = re.compile(rb"D2B(?=[0-3])")
"""Tags of a profile that is a program of any length. As a browser we heed those beside them: 160 KB ran for 10 s."""


def to_srgb(pixels: Pixels, profile: bytes | None, mode: str) -> Pixels:
    """Return sRGB pixels, height × width × 3. `mode` is pillow's name for what the profile describes: RGB, L or CMYK.

    A profile that cannot be read is passed over, as every viewer does.
    """
    gray_as_rgb = mode == "L" and pixels.ndim == 3
    transform = _transform(profile, mode) if profile else None
    if transform is not None:
        image = Image.fromarray(pixels[:, :, 0] if gray_as_rgb else pixels, mode=mode if mode == "CMYK" else None)
        return np.asarray(ImageCms.applyTransform(image, transform))
    if mode == "L" and pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if mode == "CMYK":
        return np.asarray(Image.fromarray(pixels, mode="CMYK").convert("RGB"))
    return pixels


def is_srgb(profile: bytes | None) -> bool:
    """Whether RGB pixels with this profile are sRGB as they are."""
    return profile is None or _transform(profile, "RGB") is None


@cache
def display_p3() -> bytes:
    """The profile of Display P3, which has the curves of sRGB."""
    return _like_srgb(_DISPLAY_P3)


@cache
def adobe_rgb() -> bytes:
    """The profile of Adobe RGB, whose curves are a power."""
    return _like_srgb(_ADOBE_RGB, (_ADOBE_GAMMA, 1, 0, 0, 0))


def _like_srgb(colourants: Mapping[bytes, Sequence[float]], curve: Sequence[float] = ()) -> bytes:
    """The profile of sRGB with these instead of its own. `curve`: five parameters (ICC.1:2010, 10.16, function 3)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (tags,) = struct.unpack_from(">I", profile, 128)
    for place in range(132, 132 + 12 * tags, 12):
        name, start = struct.unpack_from(">4sI", profile, place)
        for at, values in ((start + 8, colourants.get(name, ())), (start + 12, curve if name[1:] == b"TRC" else ())):
            struct.pack_into(f">{len(values)}i", profile, at, *(round(value * 65536) for value in values))
    return bytes(profile)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From `profile` to sRGB; None when there is nothing to do, or the profile is broken or of another kind."""
    return _kept(profile, mode) if len(profile) < _LARGE else _made(profile, mode)


@lru_cache(maxsize=64)
def _kept(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    return _made(profile, mode)


def _made(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        table = 132 + 12 * int.from_bytes(profile[128:132], "big")  # a table that names two tags alike is not read
        plain = _PIPELINES.sub(b"no ", profile[:table]) + profile[table:]
        source = ImageCms.ImageCmsProfile(io.BytesIO(plain))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        return None if mode == "RGB" and _moves_nothing(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _moves_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(_samples()), transform)).astype(int)
    return bool(np.abs(moved - _samples()).max() <= _SAME)


@cache
def _samples() -> Pixels:
    """Colours from all over sRGB, in a row."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
