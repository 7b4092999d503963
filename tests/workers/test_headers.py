"""What a file claims is read off its first bytes as its maker meant it, and half a file is never taken for a whole."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from workers.headers import PNG_SIGNATURE, is_whole_png, webp_size

SIZES = [(1, 1), (2, 513), (513, 2), (1024, 300), (16383, 1), (1, 16383)]


def written(size: tuple[int, int], mode: str, format: str, **how: object) -> bytes:
    drawn = np.random.default_rng(1).integers(0, 255, (size[1], size[0], len(mode)), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(drawn[..., 0] if mode == "L" else drawn, mode).save(target, format, **how)
    return target.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("mode", "kind", "how"),
    [
        ("RGB", b"VP8 ", {}),
        ("RGB", b"VP8L", {"lossless": True}),
        ("RGBA", b"VP8X", {}),
        ("RGB", b"VP8X", {"exif": b"Exif\0\0x"}),
    ],
)
def test_a_webp_is_as_large_as_it_was_made(
    size: tuple[int, int], mode: str, kind: bytes, how: dict[str, object]
) -> None:
    source = written(size, mode, "WEBP", **how)
    assert source[12:16] == kind
    assert webp_size(source) == size
    assert webp_size(source[:24]) is webp_size(b"RIFX" + source[4:]) is webp_size(source[:8] + b"WAVE" * 8) is None


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 200)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_is_whole_with_all_its_rows_and_sums(size: tuple[int, int], mode: str) -> None:
    source = written(size, mode, "PNG")
    assert is_whole_png(source)
    for cut in range(len(PNG_SIGNATURE) + 25, len(source), max(1, len(source) // 50)):
        assert not is_whole_png(source[:cut])
    for at in range(len(PNG_SIGNATURE) + 8, len(source) - 12, max(1, len(source) // 50)):
        assert not is_whole_png(source[:at] + bytes([source[at] ^ 1]) + source[at + 1 :])
    header = source[16:20] + (size[1] + 1).to_bytes(4, "big") + source[24:29]
    sums = zlib.crc32(b"IHDR" + header).to_bytes(4, "big")
    assert not is_whole_png(source[:16] + header + sums + source[33:]), "one row is not there"
