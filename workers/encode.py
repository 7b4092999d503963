"""A cutout's pixels into the file that the customer asked for."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from schemas.options import WHITE, Channels, CutoutOptions, Format, Rgba
from workers.composite import cut_out, on_colour
from workers.png import write_cutout, write_png

Pixels = npt.NDArray[np.uint8]

JPEG_QUALITY = 90
WEBP_QUALITY = 85


def encode(rgb: Pixels, alpha: Pixels, options: CutoutOptions) -> bytes:
    """The file: `rgb` with `alpha` as the options want them put together."""
    if options.format is Format.PNG and options.channels is Channels.RGBA and options.background is None:
        return write_cutout(rgb, alpha)
    if options.channels is Channels.ALPHA:
        pixels = alpha
    elif options.background is None:
        pixels = cut_out(rgb, alpha)
    else:
        pixels = on_colour(rgb, alpha, _as_the_format_can(options.background, options.format))
    match options.format:
        case Format.PNG:
            return write_png(pixels)
        case Format.JPG:
            return write_jpeg(pixels)
        case Format.WEBP:
            return write_webp(pixels)


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


def _as_the_format_can(colour: Rgba, format: Format) -> Rgba:
    """A JPEG has no transparency: a translucent colour lies on white there."""
    red, green, blue, opacity = colour
    if format is not Format.JPG or opacity == 255:
        return colour
    red, green, blue = (
        (channel * opacity + white * (255 - opacity) + 127) // 255
        for channel, white in zip((red, green, blue), WHITE, strict=False)
    )
    return red, green, blue, 255
