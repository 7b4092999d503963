"""Colour profiles: everything becomes sRGB, so that Display P3 is not taken for it and does not turn dull.

The profile that most files carry is sRGB itself; those are left alone.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]


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


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From `profile` to sRGB; None when there is nothing to do, or the profile is broken or of another kind."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "srgb" in (ImageCms.getProfileDescription(source) or "").lower():
            return None
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
