"""The one place where an image is decoded: bytes of any kind in, upright sRGB pixels out.

What a file claims is read from its header and checked before memory is taken for it. A file that ends too early or is
damaged in its middle is refused, never delivered half gray: pillow, OpenCV and others let such files through in
silence (see docs/pixels.md). The errors here carry no word of the file, because they end in logs.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
import simplejpeg
from PIL import Image, UnidentifiedImageError

from schemas.errors import DamagedImage, EmptyFile, FileTooLarge, ImageTooLarge, NotAnImage
from workers.colour import to_srgb

Pixels = npt.NDArray[np.uint8]

pillow_heif.register_heif_opener()

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF")
"""What pillow may take a file for. No other decoder is reached, whatever the bytes say."""

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Limits:
    """The largest source that is taken: `pixels` by its header, `bytes` by its length."""

    pixels: int
    bytes: int


@dataclass(frozen=True)
class Picture:
    """An upright image in sRGB: `rgb` height × width × 3. `alpha` is what the source itself left transparent."""

    rgb: Pixels
    alpha: Pixels | None

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.rgb.shape[0])


def decode(source: bytes, limits: Limits) -> Picture:
    """The picture in `source`. Raises `EmptyFile`, `FileTooLarge`, `NotAnImage`, `ImageTooLarge`, `DamagedImage`."""
    if not source:
        raise EmptyFile("The file is empty. Send it again.")
    if len(source) > limits.bytes:
        raise too_many_bytes(limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = _header(source, limits)
        try:
            return _decoded(source, header)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - each decoder has errors of its own, and all of them mean this
            raise DamagedImage("The image ends too early or is damaged. Send it again from the original.") from None


def too_many_bytes(limits: Limits) -> FileTooLarge:
    """The refusal of a file over the limit."""
    return FileTooLarge(f"The file has more than {limits.bytes / 1e6:g} MB. Send a smaller one.")


def _header(source: bytes, limits: Limits) -> Image.Image:
    try:
        header = Image.open(io.BytesIO(source), formats=FORMATS)
    except UnidentifiedImageError:
        raise NotAnImage("The file is no image of a kind that is read here, whatever its name says.") from None
    except Image.DecompressionBombError:
        raise _too_many_pixels(limits) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a header that pillow stumbles over
        raise DamagedImage("The image's header is damaged. Send it again from the original.") from None
    if header.width * header.height > limits.pixels:
        raise _too_many_pixels(limits)
    return header


def _too_many_pixels(limits: Limits) -> ImageTooLarge:
    return ImageTooLarge(f"The image has more than {limits.pixels / 1e6:g} megapixels. Send a smaller one.")


def _decoded(source: bytes, header: Image.Image) -> Picture:
    orientation = int(header.getexif().get(_ORIENTATION, 1))
    profile = cast("bytes | None", header.info.get("icc_profile"))
    if header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L"):
        rgb = cast(Pixels, simplejpeg.decode_jpeg(source, colorspace="RGB", strict=True))
        return Picture(upright(to_srgb(rgb, profile, header.mode), orientation), None)
    rgb, alpha = _by_pillow(source, header, profile)
    return Picture(upright(rgb, orientation), None if alpha is None else upright(alpha, orientation))


def _by_pillow(source: bytes, image: Image.Image, profile: bytes | None) -> tuple[Pixels, Pixels | None]:
    image.load()
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        gray = _eight_bits(np.asarray(image))
        return np.repeat(gray[:, :, None], 3, axis=2), None
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() == 255:
            alpha = None
        image = image.convert("RGB")
    elif image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    if profile is None or image.mode == "LAB":
        return np.asarray(image.convert("RGB")), alpha
    mode = image.mode
    return to_srgb(np.asarray(image), profile, mode), alpha


def _eight_bits(gray: npt.NDArray[np.generic]) -> Pixels:
    if gray.dtype == np.uint16:
        return np.asarray((gray.astype(np.uint32) + 128) // 257, np.uint8)
    values = gray.astype(np.float32)
    top = 1.0 if gray.dtype == np.float32 and float(values.max(initial=0)) <= 1 else 65535.0
    top = 255.0 if top > 1 and float(values.max(initial=0)) <= 255 else top
    return np.asarray(np.clip(values * (255.0 / top) + 0.5, 0, 255), np.uint8)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as their EXIF orientation, 1 to 8, wants them seen."""
    match orientation:
        case 2:
            return cast(Pixels, cv2.flip(pixels, 1))
        case 3:
            return cast(Pixels, cv2.rotate(pixels, cv2.ROTATE_180))
        case 4:
            return cast(Pixels, cv2.flip(pixels, 0))
        case 5:
            return cast(Pixels, cv2.transpose(pixels))
        case 6:
            return cast(Pixels, cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE))
        case 7:
            return cast(Pixels, cv2.flip(cv2.transpose(pixels), -1))
        case 8:
            return cast(Pixels, cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE))
    return pixels
