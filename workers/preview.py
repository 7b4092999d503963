"""A small picture of a photo, or of its cutout, for a page: WebP of at most 720 pixels a side, whatever it is of.

A browser cannot show HEIC, TIFF or JPEG XL, and a page of full-size cutouts would weigh a hundred megabytes.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import numpy.typing as npt
import pillow_jxl  # noqa: F401 - teaches pillow to read JPEG XL
from PIL import Image

from schemas.options import Format
from workers.decode import Limits, decode

LONGEST = 720
_QUALITY = 80


def of_photo(source: bytes, limits: Limits) -> bytes:
    """The photo, upright and in sRGB. Raises the `ItemError` of a source that cannot be decoded."""
    picture = decode(source, limits)
    return _small(picture.rgb, picture.alpha)


def of_cutout(file: bytes, format: Format, limits: Limits) -> bytes:
    """The cutout, transparent where it is. A zip is shown as its photo and mask make it. Raises as `of_photo` does."""
    if format is Format.ZIP:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            photo, mask = (
                archive.read(name) for name in sorted(archive.namelist(), key=lambda name: name == "mask.png")
            )
        return _small(decode(photo, limits).rgb, decode(mask, limits).rgb[:, :, 0])
    if format is Format.JXL:  # our own: nobody else's is decoded
        with Image.open(io.BytesIO(file), formats=("JXL",)) as image:
            return _written(image.convert("RGBA"))
    return of_photo(file, limits)


def _small(rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8] | None) -> bytes:
    return _written(Image.fromarray(rgb if alpha is None else np.dstack((rgb, alpha))))


def _written(image: Image.Image) -> bytes:
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC, reducing_gap=2.0)
    target = io.BytesIO()
    image.save(target, "WEBP", quality=_QUALITY, method=0)
    return target.getvalue()
