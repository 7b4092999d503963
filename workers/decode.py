"""The one place where an image is decoded: bytes of any kind in, upright sRGB pixels out.

What a file claims is read from its header and checked before memory is taken for it. A file that ends too early or is
damaged in its middle is refused, never delivered half gray: pillow, OpenCV and others let such files through in
silence (see docs/pixels.md). The errors here carry no word of the file, because they end in logs.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
import simplejpeg
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from schemas.errors import DamagedImage, EmptyFile, FileTooLarge, ImageTooLarge, NotAnImage, UnsupportedImage
from workers.colour import adobe_rgb, display_p3, to_srgb
from workers.headers import (
    PNG_SIGNATURE,
    TIFF_BEGINNINGS,
    coded_colours,
    heif_pixels,
    is_whole_png,
    is_whole_tiff_header,
    webp_size,
)
from workers.jpeg_file import (
    JPEG_BEGINNING,
    has_a_scan,
    has_too_many_scans,
    has_too_much_exif,
    is_of_a_kind_not_read,
    plain_jpeg,
    up_to_its_end,
    with_its_end,
    without_its_last,
    without_segments,
)

Pixels = npt.NDArray[np.uint8]

pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = None  # an operator's own limit may be higher; it is asked of every header
PngImagePlugin.MAX_TEXT_CHUNK = 16_000_000  # as a JPEG holds; pillow gives a PNG up over a profile or note of 1 MB

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF")
"""What pillow may take a file for. No other decoder is reached, whatever the bytes say."""

_BEGINNINGS = (JPEG_BEGINNING, PNG_SIGNATURE, *TIFF_BEGINNINGS)
_BRANDS = (b"ftypavif", b"ftypavis", b"ftypheic", b"ftypheix", b"ftypmif1")
"""How JPEG, PNG, TIFF begin, and HEIC and AVIF after their first four bytes."""

_GZIP = b"\x1f\x8b"

_ORIENTATION = 0x0112
_UNCALIBRATED, _RULE, _ADOBE_RGB = 0xFFFF, 1, b"R03"
"""In EXIF: colours that are not sRGB's, and the tag that says by which rule of DCF 2.0 a photo was taken."""
_PHOTOSHOP = 0xED

_SPARE_BYTES = re.compile(r"(\d+) extraneous bytes before marker")
_AT_THE_END = re.compile("Premature end of JPEG file|extraneous bytes before marker 0xd9")
"""Warnings of libjpeg which it gives where the file ends: as the first one, they say that all was well until there."""

_DISPLAY_P3, _HIGH_RANGE = (12, 13), (16, 18)
"""Primaries and transfer of the first, and transfers of the second, PQ and HLG, by their numbers in ITU-T H.273."""

_KIND_OF_PAGE, _SAMPLE_BITS, _ZERO_IS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT = 254, 258, 262, 284, 322, 323
"""Tags of TIFF. With more than 8 bits a sample pillow takes planes for pixels, and a negative for a positive; 12 bits
it takes for 16, which makes them nearly black."""
_REDUCED, _WHITE = 1, 0

_COMPRESSION, _WEBP = 259, 50001
"""Which the libtiff of pillow's wheels has not."""

_MOST_PROFILES = 10
"""A PNG has one, and by chance the letters once more; pillow unpacks each, and 15 KB of them took 50 ms."""

_DEPTH_OF_PNG = 24
"""Where a PNG says how many bits a shade has."""

_JPEG_FORMATS = ("JPEG", "MPO")
"""pillow's names for a JPEG: MPO is one with more photos behind it, such as the other eye's; the first is taken."""


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
    """The picture in `source`.

    Raises `EmptyFile`, `FileTooLarge`, `NotAnImage`, `ImageTooLarge`, `UnsupportedImage`, `DamagedImage`.
    """
    header = open_header(source, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decoded(source, header)
        except (MemoryError, UnsupportedImage):
            raise
        except Exception:  # noqa: BLE001 - each decoder has errors of its own, and all of them mean this
            raise _unsupported() if is_of_a_kind_not_read(source) else _damaged() from None


def too_many_bytes(limits: Limits) -> FileTooLarge:
    """The refusal of a file over the limit."""
    return FileTooLarge(f"The file has more than {limits.bytes / 1e6:g} MB. Send a smaller one.")


def open_header(source: bytes, limits: Limits) -> Image.Image:
    """What the file claims, checked before memory is taken for it; no pixel is read. Raises as `decode` does."""
    if not source:
        raise EmptyFile("The file is empty. Send it again.")
    if len(source) > limits.bytes:
        raise too_many_bytes(limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _header(source, limits)


def _header(source: bytes, limits: Limits) -> Image.Image:
    claimed = webp_size(source)
    if claimed is not None and claimed[0] * claimed[1] > limits.pixels:
        raise _too_many_pixels(limits)
    if source.startswith(PNG_SIGNATURE) and source.count(b"iCCP") > _MOST_PROFILES:
        raise _unsupported()
    if source.startswith(JPEG_BEGINNING) and has_too_much_exif(source):
        raise _unsupported()
    try:
        header = Image.open(io.BytesIO(source), formats=FORMATS)
        pixels = max(header.width * header.height, _pixels_of_a_tile(header), heif_pixels(source))
    except UnidentifiedImageError:
        plain = without_segments(source, (_PHOTOSHOP,)) if source.startswith(JPEG_BEGINNING) else source
        if plain != source:  # pillow gives up a JPEG over what Photoshop noted
            return _header(plain, limits)
        raise _unread(source) from None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a header that pillow stumbles over
        raise _damaged() from None
    if pixels > limits.pixels:
        raise _too_many_pixels(limits)
    if header.format in _JPEG_FORMATS and has_too_many_scans(source):
        raise _unsupported()
    return header


def _pixels_of_a_tile(header: Image.Image) -> int:
    """Of a TIFF in tiles, which takes memory for a whole one however little of it is of the picture; else 0."""
    tags = header.tag_v2 if isinstance(header, TiffImageFile) else {}
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_HEIGHT, 0))


def _unread(source: bytes) -> NotAnImage | UnsupportedImage | DamagedImage:
    """Why pillow would not open it: what begins as an image does is damaged, unless its header can be read."""
    if is_of_a_kind_not_read(source) or is_whole_tiff_header(source):
        return _unsupported()
    if source.startswith(_BEGINNINGS) or webp_size(source) is not None or source[4:12] in _BRANDS:
        return _damaged()
    if source.startswith(_GZIP):  # as some servers send what is to be unpacked by who reads it
        return NotAnImage("The file is packed with gzip, whatever its name says. Send the image itself.")
    return NotAnImage("The file is no image of a kind that is read here, whatever its name says.")


def _damaged() -> DamagedImage:
    return DamagedImage("The image ends too early or is damaged. Send it again from the original.")


def _unsupported() -> UnsupportedImage:
    return UnsupportedImage("The image is stored in a form that is not read here. Save it as an 8-bit JPEG or PNG.")


def _too_many_pixels(limits: Limits) -> ImageTooLarge:
    return ImageTooLarge(f"The image has more than {limits.pixels / 1e6:g} megapixels. Send a smaller one.")


def _decoded(source: bytes, header: Image.Image) -> Picture:
    profile = profile_of(source, header)
    if header.format in _JPEG_FORMATS:
        rgb = to_srgb(_jpeg_pixels(source, header.mode), profile, header.mode)
        return Picture(upright(rgb, orientation_of(header)), None)
    if header.format == "PNG":
        if not is_whole_png(source):
            raise _damaged()
        _count_what_is_clear_as_pixels(header, source[_DEPTH_OF_PNG])
    tags = dict(header.tag_v2) if isinstance(header, TiffImageFile) else {}
    if header.mode == "I" or _is_tiff_of_a_kind_not_read(tags):
        raise _unsupported()
    header.info.pop("xmp", None)  # as of EXIF: to load a TIFF turns it upright
    rgb, alpha = _by_pillow(header, profile, tags.get(_ZERO_IS) == _WHITE)
    if header.format == "BMP" and alpha is not None and not alpha.any():
        alpha = None  # Windows' programs leave it empty, and mean that all is there
    orientation = orientation_of(header)  # asked now: a PNG may tell it behind its pixels
    return Picture(upright(rgb, orientation), None if alpha is None else upright(alpha, orientation))


def _is_tiff_of_a_kind_not_read(tags: Mapping[int, Any]) -> bool:
    """Whether pillow reads what has these tags wrong, or not at all, or its first picture is a small copy."""
    bits = tags.get(_SAMPLE_BITS, (1,))
    has_large_planes = tags.get(_PLANES) == 2 and max(bits) > 8
    is_a_small_copy = bool(tags.get(_KIND_OF_PAGE, 0) & _REDUCED)  # as raw files of cameras begin with
    return has_large_planes or is_a_small_copy or 12 in bits or tags.get(_COMPRESSION) == _WEBP


def _count_what_is_clear_as_pixels(png: Image.Image, depth: int) -> None:
    """The shade or colour that is transparent is told as the file counts; pillow compares it with pixels of 8 bits."""
    clear = png.info.get("transparency")
    if png.mode == "L" and isinstance(clear, int):
        png.info["transparency"] = clear * 255 // (2**depth - 1)
    if png.mode == "RGB" and clear is not None and depth == 16:
        png.info["transparency"] = tuple(channel >> 8 for channel in clear)


def profile_of(source: bytes, header: Image.Image) -> bytes | None:
    """The colour profile, or that of the colours which the file or a camera names. A PNG's number goes before it.

    Colours for screens of high dynamic range would come out flat and pale: raises `UnsupportedImage`.
    """
    profile, named = cast("bytes | None", header.info.get("icc_profile")), header.info.get("nclx_profile")
    if profile is not None and header.format != "PNG":
        return profile
    if header.format in _JPEG_FORMATS:
        return adobe_rgb() if _is_adobe_rgb(header) else None
    primaries, transfer = coded_colours(source)
    if named is not None:  # a HEIC's, which may hold several images
        primaries, transfer = named["color_primaries"], named["transfer_characteristics"]
    if transfer in _HIGH_RANGE:
        raise _unsupported()
    return display_p3() if (primaries, transfer) == _DISPLAY_P3 else profile


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether a camera says so: many write no profile, but colours that are not sRGB's and DCF's name for these."""
    if _ADOBE_RGB not in image.info.get("exif", b""):  # to read all of it takes twice as long as the whole header
        return False
    try:
        exif = _exif_of(image)
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        return bool(space == _UNCALIBRATED and exif.get_ifd(ExifTags.IFD.Interop).get(_RULE) == _ADOBE_RGB.decode())
    except Exception:  # noqa: BLE001 - as with its orientation
        return False


def orientation_of(image: Image.Image) -> int:
    """1 to 8, as EXIF numbers them; 1 is upright, and what an EXIF says that cannot be read."""
    try:
        value = _exif_of(image).get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - whatever pillow stumbles over there, the pixels are whole
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _exif_of(image: Image.Image) -> Image.Exif:
    """Read anew: to pillow's, read with a JPEG's header, it adds the orientation that XMP or a PNG's text tells.

    No browser looks there, nor does the lake.
    """
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif


def _jpeg_pixels(source: bytes, mode: str, is_plain: bool = False) -> Pixels:
    """The pixels of a JPEG. libjpeg's warnings are errors here, but for very few bytes too many among the pixels.

    Some cameras write those. Many of them mean that the decoder lost its way. Only the first warning is told, so what
    libjpeg stumbles over beside the pixels is taken away before it is asked again: once, which `is_plain` says, as a
    file could be made that has a little more to take away each time.
    """
    space = "CMYK" if mode == "CMYK" else "RGB"
    try:
        pixels = cast(Pixels, simplejpeg.decode_jpeg(source, colorspace=space, strict=True))
    except ValueError as error:
        if "subsampling" in str(error) and has_a_scan(source):  # it reads none that is odd
            raise _unsupported() from None
        if not is_plain and (plain := plain_jpeg(source)) != source:
            return _jpeg_pixels(plain, mode, is_plain=True)
        if _AT_THE_END.search(str(error)) and (whole := with_its_end(source)) != source:
            return _jpeg_pixels(whole, mode, is_plain=True)
        spare = _SPARE_BYTES.search(str(error))
        if spare is None or int(spare[1]) > 4 or up_to_its_end(source) is None:
            raise
        is_last = "before marker 0xd9" in str(error)  # or there should be a restart, and pixels: then it is told again
        mended = without_its_last(source, int(spare[1])) if is_last else source
        pixels = cast(Pixels, simplejpeg.decode_jpeg(mended, colorspace=space, strict=is_last))
    return np.bitwise_not(pixels) if mode == "CMYK" else pixels  # CMYK in JPEG is stored inverted, as Adobe does


def _by_pillow(image: Image.Image, profile: bytes | None, is_negative: bool) -> tuple[Pixels, Pixels | None]:
    if image.mode.startswith("I;16") or image.mode == "F":
        shades = np.asarray(image)
        gray = _eight_bits(shades)
        is_clear = shades == image.info.get("transparency", np.nan)
        alpha = np.where(is_clear, np.uint8(0), np.uint8(255)) if is_clear.any() else None
        return to_srgb(np.bitwise_not(gray) if is_negative else gray, profile, "L"), alpha
    alpha = None
    if image.has_transparency_data:
        colours = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
        image = image.convert(f"{colours}A")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert(colours)
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return to_srgb(np.asarray(image), profile, image.mode), alpha


def _eight_bits(gray: npt.NDArray[np.generic]) -> Pixels:
    """Grays of 16 bits or floating point as 0…255. Floats up to 4 are fractions, with highlights over 1; NaN is 0."""
    values = gray.astype(np.float32)
    top = 65535.0
    if gray.dtype.kind == "f":
        peak = float(values[np.isfinite(values)].max(initial=0))
        top = next((each for reach, each in ((4.0, 1.0), (255.0, 255.0)) if peak <= reach), top)
        values = np.nan_to_num(values, posinf=peak)
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
