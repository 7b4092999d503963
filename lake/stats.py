"""What lies in the lake: numbers by industry and week, and a few candidates to look at."""

from __future__ import annotations

import io
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from lake.duplicates import mark_duplicates
from lake.pictures import gray, rgb
from lake.reading import FILE, ROW, Lake
from schemas.industries import Industry


@dataclass(frozen=True)
class WeekOfIndustry:
    """Candidates that were received in one ISO week for one industry."""

    industry: str
    week: str
    grants: int
    images: int
    megapixels: float
    edge_uncertainty: float
    duplicates: int
    near_duplicates: int


def weekly(lake: Lake, industry: Industry | None = None) -> list[WeekOfIndustry]:
    """One line per industry and week, in that order. Raises `StoreFault`."""
    columns = ("candidate_id", "received_at", "width", "height", "edge_uncertainty", "image_sha256", "phash")
    labels = mark_duplicates(lake.labels(industry, columns))
    pixels = pc.multiply(labels["width"].cast(pa.float64()), labels["height"].cast(pa.float64()))
    grouped = (
        pa.table(
            {
                "industry": labels["industry"].cast(pa.string()),
                "week": pc.strftime(labels["received_at"], format="%G-W%V"),
                "grant": labels["grant_id"].cast(pa.string()),
                "pixels": pixels,
                "edge": labels["edge_uncertainty"],
                "same": labels["duplicate_of"],
                "near": labels["near_duplicate_of"],
            }
        )
        .group_by(["industry", "week"])
        .aggregate(
            [
                ("grant", "count_distinct"),
                ("grant", "count"),
                ("pixels", "mean"),
                ("edge", "mean"),
                ("same", "count"),
                ("near", "count"),
            ]
        )
        .sort_by([("industry", "ascending"), ("week", "ascending")])
    )
    return [
        WeekOfIndustry(
            industry=row["industry"],
            week=row["week"],
            grants=row["grant_count_distinct"],
            images=row["grant_count"],
            megapixels=row["pixels_mean"] / 1e6,
            edge_uncertainty=row["edge_mean"],
            duplicates=row["same_count"],
            near_duplicates=row["near_count"],
        )
        for row in grouped.to_pylist()
    ]


def look_at(lake: Lake, industry: Industry | None, count: int, side: int) -> list[tuple[str, bytes, bytes]]:
    """Some candidates, always the same: their scores in words, and photo and cutout as PNG of about `side` pixels.

    Both are empty for a photo that does not decode here.
    """
    labels = lake.labels(industry, ("candidate_id", "edge_uncertainty", "coverage", "width", "height"))
    chosen = sorted(Random(0).sample(range(labels.num_rows), min(count, labels.num_rows)))
    found = []
    for row in labels.take(pa.array(chosen, pa.int64())).to_pylist():
        reader = lake.open(row[FILE])
        group, place = divmod(row[ROW], reader.metadata.row_group(0).num_rows)
        image, mask = (memoryview(reader.values(group, name)[place]) for name in ("image", "mask_png"))
        caption = (
            f"{row['industry']}  {row['width']} x {row['height']}  "
            f"edges {row['edge_uncertainty']:.2f}  coverage {row['coverage']:.2f}"
        )
        found.append((caption, *_photo_and_cutout(image, mask, side)))
    return found


def _photo_and_cutout(image: memoryview, mask: memoryview, side: int) -> tuple[bytes, bytes]:
    try:
        pixels = rgb(image, (side, side))
    except ValueError:
        return b"", b""
    scale = side / max(pixels.shape[:2])
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(gray(mask), size, interpolation=cv2.INTER_AREA)
    return _png(small), _png(np.dstack((small, alpha)))


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
