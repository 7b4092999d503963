"""Numbers of things, as people read them."""

from __future__ import annotations


def so_many(count: float, one: str, many: str = "") -> str:
    """`1 batch`, `2,000 batches`, `1.5 hours`. `many`: where neither an s nor an es makes it."""
    number = f"{count:g}" if isinstance(count, float) else f"{count:,}"
    return f"{number} {one if count == 1 else many or one + ('es' if one.endswith('ch') else 's')}"
