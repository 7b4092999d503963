"""A JPEG ends where its picture does, whatever hangs behind it, and no header costs more than a camera's."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
from PIL import Image

from workers.jpeg_file import plain_jpeg, up_to_its_end


def written(width: int, height: int) -> bytes:
    target = io.BytesIO()
    drawn = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(drawn).save(target, "JPEG")
    return target.getvalue()


def test_a_jpeg_ends_where_its_picture_ends() -> None:
    source = written(64, 48)
    assert up_to_its_end(source) == up_to_its_end(source + b"a film") == source
    assert up_to_its_end(source[:-2]) is None
    frame = source.index(b"\xff\xc0")
    odd = source[:frame] + b"spare\xff\xfe\0\x06\xff\xd9\xff\xd9" + source[frame:]
    assert up_to_its_end(odd + b"a film") == odd, "what a comment holds is no end"


def test_a_jpeg_of_millions_of_segments_takes_no_memory_for_each() -> None:
    good = written(64, 64)
    assert plain_jpeg(good[:2] + b"spare" + good[2:]) == good
    hostile = good[:2] + b"spare" + b"\xff\xfe\0\2" * 100_000 + good[2:]
    tracemalloc.start()
    assert plain_jpeg(hostile) == hostile
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(hostile) + 2_000_000
