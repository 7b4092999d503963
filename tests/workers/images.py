"""Images of every kind, made on the spot; good ones and hostile ones."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
from PIL import ExifTags, Image

pillow_heif.register_heif_opener()

RED, GREEN, BLUE, WHITE = (200, 30, 40), (30, 180, 60), (20, 60, 210), (240, 240, 240)


def corners(width: int = 96, height: int = 64) -> np.ndarray:
    """A picture whose four quarters tell each orientation apart: red and green above blue and white."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = WHITE
    return image


def noise(width: int = 256, height: int = 256) -> np.ndarray:
    image = np.random.default_rng(5).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def in_adobe_rgb(image: Image.Image) -> bytes:
    """A JPEG as cameras write it that are told to: no profile, and two tags that say so."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ColorSpace: 0xFFFF, ExifTags.IFD.Interop: {1: "R03"}})
    return saved(image, "JPEG", quality=95, exif=exif)


def oriented(upright: np.ndarray, orientation: int, format: str) -> bytes:
    """A file whose stored pixels are turned, and whose EXIF orientation turns them back."""
    back = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    image = Image.fromarray(np.ascontiguousarray(back(upright)))
    if format == "HEIF":  # which keeps the turn as a property of the image and clears it in the EXIF data
        image.info["exif"] = exif.tobytes()
        return saved(image, format, quality=95)
    return saved(image, format, exif=exif, **options)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width: int, height: int) -> bytes:
    """A small and valid PNG that claims width × height pixels of one bit."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_with_a_text_bomb() -> bytes:
    """A compressed comment of 300 MB of zeros before the pixels."""
    compressor = zlib.compressobj(9)
    bomb = b"".join(compressor.compress(bytes(1_000_000)) for _ in range(300)) + compressor.flush()
    good = saved(corners(), "PNG")
    return good[:33] + png_chunk(b"zTXt", b"Comment\0\0" + bomb) + good[33:]


def png_of(
    rows: bytes,
    width: int,
    height: int,
    interlaced: bool = False,
    depth: int = 8,
    between: bytes = b"",
    colour: int = 0,
) -> bytes:
    """A PNG of these rows, each with its filter's number, as they are before they are deflated.

    `between`: chunks before them. `colour`: PNG's number of the kind; 0 is gray, 2 RGB.
    """
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + between + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def adam7(gray: np.ndarray) -> bytes:
    """The rows of an interlaced PNG (PNG standard, 8.2)."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = (gray[y::down, x::across] for x, y, across, down in passes)
    return b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)


def planar_tiff(bits: int = 16) -> bytes:
    """The colours in planes of their own, big-endian; `bits`: of a sample, 8 or 16."""
    planes = corners(8, 8).astype(f">u{bits // 8}").transpose(2, 0, 1) * (257 if bits == 16 else 1)
    size = 64 * bits // 8
    entries = [
        (256, 3, 1, 8 << 16),
        (257, 3, 1, 8 << 16),
        (258, 3, 3, 200),
        (259, 3, 1, 1 << 16),
        (262, 3, 1, 2 << 16),
        (273, 4, 3, 206),
        (277, 3, 1, 3 << 16),
        (279, 4, 3, 218),
        (284, 3, 1, 2 << 16),
    ]
    head = b"MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(struct.pack(">HHII", *each) for each in entries)
    lists = struct.pack(">3H", bits, bits, bits) + struct.pack(">3I", 230, 230 + size, 230 + 2 * size)
    return head.ljust(200, b"\0") + lists + struct.pack(">3I", size, size, size) + planes.tobytes()


def bmp_with_alpha(alpha: np.ndarray) -> bytes:
    """Version 4, whose masks say where red, green, blue and alpha lie; rows from below."""
    height, width = alpha.shape
    pixels = np.dstack((corners(width, height)[..., ::-1], alpha))[::-1].tobytes()
    size = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + size + masks + pixels


def tiled_tiff(across: int, down: int) -> bytes:
    """Of 8 × 8 pixels, in one tile that claims across × down."""
    entries = [
        (256, 4, 1, 8),
        (257, 4, 1, 8),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (322, 4, 1, across),
        (323, 4, 1, down),
        (324, 4, 1, 200),
        (325, 4, 1, 100),
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries)
    return head.ljust(200, b"\0") + zlib.compress(bytes(across * min(down, 256)))


def cropped_heic(heic: bytes, width: int, height: int) -> bytes:
    """A HEIC of one image, as pillow_heif writes it, that claims width × height pixels and to be cropped to 64 × 48."""
    extent = heic.index(b"ispe") + 8
    crop = struct.pack(">I4s8I", 40, b"clap", 64, 1, 48, 1, 0, 1, 0, 1)
    count = heic.index(b"ipma") + 14  # of the image's properties; the new one comes after the four that it has
    head = heic[:extent] + struct.pack(">II", width, height) + heic[extent + 8 : count - 18] + crop
    head += heic[count - 18 : count] + b"\5" + heic[count + 1 : count + 5] + b"\x85"
    for box, more in ((b"meta", 41), (b"iprp", 41), (b"ipco", 40), (b"ipma", 1)):
        place = head.index(box) - 4
        head = (
            head[:place] + struct.pack(">I", int.from_bytes(head[place : place + 4], "big") + more) + head[place + 4 :]
        )
    data = struct.pack(">I", heic.index(b"mdat") + 4)
    place = head.index(data, head.index(b"iloc"))
    return head[:place] + struct.pack(">I", len(head) + 8) + head[place + 4 :] + heic[count + 5 :]


def with_scans(jpeg: bytes, more: int) -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    last = jpeg[jpeg.rindex(b"\xff\xc4") : -2]
    return jpeg[:-2] + last * more + jpeg[-2:]


def webp_claiming(width: int, height: int) -> bytes:
    good = saved(Image.fromarray(corners()).convert("RGBA"), "WEBP", lossless=True)
    extended = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + extended + good[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiny_webp() -> bytes:
    """26 bytes that claim 16,384 × 16,384 pixels."""
    body = b"WEBPVP8L" + struct.pack("<I", 6) + b"\x2f" + (0x0FFFFFFF).to_bytes(4, "little") + b"\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_claiming(width: int, height: int) -> bytes:
    """A JPEG whose frame header says width × height; its data is for far less."""
    good = bytearray(saved(corners(), "JPEG"))
    place = good.index(b"\xff\xc0") + 5
    good[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(good)


def with_a_hole(data: bytes, at: float = 0.6, length: int = 40) -> bytes:
    """Damaged in its middle."""
    place = int(len(data) * at)
    return data[:place] + bytes((byte ^ 0x55) for byte in data[place : place + length]) + data[place + length :]


HOSTILE: dict[str, tuple[bytes, str]] = {}
"""Name → bytes and the code that they must end with. A folder of them is what a careless or an evil customer sends."""


def _hostile() -> None:
    jpeg, png = saved(noise(), "JPEG", quality=90), saved(noise(), "PNG")
    webp = saved(noise(), "WEBP", quality=90)
    tiff = saved(noise(), "TIFF", compression="tiff_lzw")
    heic, avif = saved(noise(), "HEIF", quality=80), saved(noise(), "AVIF")
    cmyk = saved(Image.fromarray(noise()).convert("CMYK"), "JPEG", quality=90)
    HOSTILE.update(
        {
            "empty.jpg": (b"", "empty_file"),
            "one-byte.jpg": (b"\xff", "not_an_image"),
            "text.jpg": (b"This is a letter, not a photo.\n" * 50, "not_an_image"),
            "page.png": (b"<!doctype html><html><body>404</body></html>", "not_an_image"),
            "drawing.jpg": (
                b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
                "not_an_image",
            ),
            "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n", "not_an_image"),
            "document.png": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "not_an_image"),
            "archive.webp": (b"PK\x03\x04" + bytes(200), "not_an_image"),
            "packed.jpg": (gzip.compress(jpeg), "not_an_image"),
            "program.tif": (b"\x7fELF" + bytes(500), "not_an_image"),
            "zeros.heic": (bytes(5000), "not_an_image"),
            "film.avif": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(400), "not_an_image"),
            "signature-only.jpg": (jpeg[:4], "damaged_image"),
            "signature-only.png": (png[:8], "damaged_image"),
            "header-only.jpg": (jpeg[: jpeg.index(b"\xff\xda")], "damaged_image"),
            "half.jpg": (jpeg[: len(jpeg) // 2], "damaged_image"),
            "all-but-the-end.jpg": (jpeg[:-60], "damaged_image"),
            "hole.jpg": (with_a_hole(jpeg), "damaged_image"),
            "hole-cmyk.jpg": (with_a_hole(cmyk, 0.8), "damaged_image"),
            "half-progressive.jpg": (saved(noise(), "JPEG", progressive=True)[:6000], "damaged_image"),
            "half.png": (png[: len(png) // 2], "damaged_image"),
            "no-end.png": (png[:-12], "damaged_image"),
            "hole.png": (with_a_hole(png), "damaged_image"),
            "hole-at-the-end.png": (with_a_hole(png, 0.999, 8), "damaged_image"),
            "half.webp": (webp[: len(webp) // 2], "damaged_image"),
            "half.tif": (tiff[: len(tiff) // 2], "damaged_image"),
            "half.heic": (heic[: len(heic) // 2], "damaged_image"),
            "half.avif": (avif[: len(avif) // 2], "damaged_image"),
            "text-bomb.png": (png_with_a_text_bomb(), "damaged_image"),
            "profiles.png": (
                png_of(bytes(65 * 48), 64, 48, between=png_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"")) * 11),
                "unsupported_image",
            ),
            "few-rows.png": (png_of(bytes(65 * 20), 64, 48), "damaged_image"),
            "few-rows-interlaced.png": (
                png_of(adam7(np.zeros((48, 64), np.uint8))[:-500], 64, 48, True),
                "damaged_image",
            ),
            "12-bit.jpg": (jpeg.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "unsupported_image"),
            "scans.jpg": (with_scans(saved(noise(), "JPEG", progressive=True), 100), "unsupported_image"),
            "exif-in-101-pieces.jpg": (jpeg[:2] + b"\xff\xe1\0\x09Exif\0\0x" * 101 + jpeg[2:], "unsupported_image"),
            "10,001-segments.jpg": (jpeg[:2] + b"\xff\xe9\0\2" * 10_001 + jpeg[2:], "unsupported_image"),
            "height-behind-the-pixels.jpg": (jpeg_claiming(256, 0), "unsupported_image"),
            "odd-subsampling.jpg": (
                jpeg.replace(b"\x01\x22\0\x02\x11\1", b"\x01\x31\0\x02\x11\1"),
                "unsupported_image",
            ),
            "lossless.jpg": (jpeg.replace(b"\xff\xc0\x00\x11", b"\xff\xc3\x00\x11"), "unsupported_image"),
            "floats.tif": (cv2.imencode(".tif", noise().astype(np.float32))[1].tobytes(), "unsupported_image"),
            "half-floats.tif": (cv2.imencode(".tif", noise().astype(np.float32))[1].tobytes()[:900], "damaged_image"),
            "32-bit.tif": (cv2.imencode(".tif", noise()[:, :, 0].astype(np.uint32))[1].tobytes(), "unsupported_image"),
            "12-bit.tif": (
                saved(Image.fromarray(noise()[:, :, 0].astype(np.uint16) * 16), "TIFF").replace(
                    struct.pack("<HHII", 258, 3, 1, 16), struct.pack("<HHII", 258, 3, 1, 12)
                ),
                "unsupported_image",
            ),
            "planes-of-16-bits.tif": (planar_tiff(), "unsupported_image"),
            "webp-inside.tif": (
                saved(corners(), "TIFF").replace(
                    struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 50001)
                ),
                "unsupported_image",
            ),
            "small-copy-first.tif": (saved(corners(), "TIFF", tiffinfo={254: 1}), "unsupported_image"),
            "268-megapixels-in-26-bytes.webp": (tiny_webp(), "image_too_large"),
            "200-megapixels.png": (png_bomb(20_000, 10_000), "image_too_large"),
            "400-megapixels.png": (png_bomb(20_000, 20_000), "image_too_large"),
            "4-gigapixels.jpg": (jpeg_claiming(65_000, 65_000), "image_too_large"),
            "268-megapixels.webp": (webp_claiming(16_383, 16_383), "image_too_large"),
            "200-megapixels-cropped-to-none.heic": (cropped_heic(heic, 20_000, 10_000), "image_too_large"),
            "200-megapixels-in-a-tile.tif": (tiled_tiff(20_000, 10_000), "image_too_large"),
            "long.png": (png_bomb(2_000_000, 40), "image_too_large"),
            "too-many-bytes.jpg": (jpeg + bytes(3_000_000), "file_too_large"),
        }
    )


_hostile()
