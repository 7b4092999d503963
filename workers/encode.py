"""A cutout's pixels into the file that the customer asked for."""

from __future__ import annotations

import io
import zipfile

import cv2
import numpy as np
import numpy.typing as npt
import pillow_jxl  # noqa: F401 - teaches pillow to write JPEG XL
import simplejpeg
from PIL import Image

from schemas.errors import ImageTooLarge
from schemas.options import WHITE, Channels, CutoutOptions, Format, Rgba
from workers.composite import cut_out, on_colour, on_image
from workers.decode import FORMATS
from workers.jpeg_file import JPEG_BEGINNING
from workers.png import write_cutout, write_png

Pixels = npt.NDArray[np.uint8]

JPEG_QUALITY = 90
WEBP_QUALITY = 85

_MOST_A_SIDE = {Format.JPG: 65_500, Format.WEBP: 16_383}
"""What libjpeg and libwebp can write, in pixels."""


def encode(rgb: Pixels, alpha: Pixels, options: CutoutOptions, behind: Pixels | None = None) -> bytes:
    """The file: `rgb` with `alpha` as the options want them put together; `behind`: a photo to lie behind them.

    Raises `ImageTooLarge` where the format cannot hold as many pixels a side.
    """
    most = _MOST_A_SIDE.get(options.format)
    if most is not None and max(alpha.shape) > most:
        raise ImageTooLarge(
            f"A {options.format} file has at most {most} pixels a side. Choose png or jxl, or a smaller size."
        )
    is_clear = options.channels is Channels.RGBA and options.background is None and behind is None
    if options.format is Format.PNG and is_clear:
        return write_cutout(rgb, alpha)
    pixels = _together(rgb, alpha, options, behind)
    match options.format:
        case Format.PNG:
            return write_png(pixels)
        case Format.JPG:
            return write_jpeg(pixels)
        case Format.WEBP:
            return write_webp(pixels)
        case Format.JXL:
            return write_jxl(pixels)
        case Format.ZIP:
            raise ValueError("a zip is not made of pixels: use write_zip")


def _together(rgb: Pixels, alpha: Pixels, options: CutoutOptions, behind: Pixels | None) -> Pixels:
    if options.channels is Channels.ALPHA:
        return alpha
    if behind is not None:
        return on_image(rgb, alpha, covering(behind, rgb.shape[1], rgb.shape[0]))
    if options.background is None:
        return cut_out(rgb, alpha)
    return on_colour(rgb, alpha, as_the_format_can(options.background, options.format))


def as_the_format_can(colour: Rgba, format: Format) -> Rgba:
    """A JPEG has no transparency: a translucent colour lies on white there."""
    red, green, blue, opacity = colour
    if format is not Format.JPG or opacity == 255:
        return colour
    red, green, blue = (
        (channel * opacity + white * (255 - opacity) + 127) // 255
        for channel, white in zip((red, green, blue), WHITE, strict=False)
    )
    return red, green, blue, 255


def covering(image: Pixels, width: int, height: int) -> Pixels:
    """The middle of the image, scaled so that it covers width × height."""
    scale = max(width / image.shape[1], height / image.shape[0])
    across = max(1, min(image.shape[1], round(width / scale)))
    down = max(1, min(image.shape[0], round(height / scale)))
    left, top = (image.shape[1] - across) // 2, (image.shape[0] - down) // 2
    middle = image[top : top + down, left : left + across]
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(middle, (width, height), interpolation=kind), np.uint8)


def write_jpeg(pixels: Pixels) -> bytes:
    """A JPEG of height × width × 3, or gray of height × width."""
    if pixels.ndim == 2:
        gray = np.ascontiguousarray(pixels)[:, :, None]
        return bytes(simplejpeg.encode_jpeg(gray, quality=JPEG_QUALITY, colorspace="GRAY", colorsubsampling="Gray"))
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"
        )
    )


def write_webp(pixels: Pixels) -> bytes:
    """A WebP, lossy in colour; alpha is kept as it is."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=WEBP_QUALITY, method=0, alpha_quality=100)
    return file.getvalue()


def write_jxl(pixels: Pixels) -> bytes:
    """A lossless JPEG XL at the least effort: some 35 % smaller than PNG, and as cheap to make."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JXL", lossless=True, effort=1, num_threads=1)
    return file.getvalue()


def write_zip(source: bytes, alpha: Pixels) -> bytes:
    """The photo's own bytes and its mask, upright and of full size, as a PNG; neither is compressed once more."""
    file, suffix = io.BytesIO(), "jpg"
    if not source.startswith(JPEG_BEGINNING):  # pillow gives up some that could be decoded
        suffix = (Image.open(io.BytesIO(source), formats=FORMATS).format or "bin").lower()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # A fixed date: the same photo gives the same bytes.
        archive.writestr(zipfile.ZipInfo(f"photo.{suffix}"), source)
        archive.writestr(zipfile.ZipInfo("mask.png"), write_png(alpha))
    return file.getvalue()
