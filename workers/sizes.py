"""How large a cutout comes out: at most the cap, never larger than the photo."""

from __future__ import annotations

import math


def fitted(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Width and height of at most `max_pixels` in the same proportions; unchanged when they fit already."""
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    narrow = max(1, math.floor(width * scale))
    low = min(max_pixels, max(1, math.floor(height * scale)))
    return min(narrow, max_pixels // low), low
