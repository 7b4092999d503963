"""Our masks against rembg's own, on many photos: the demo photos in other sizes, qualities, crops, turns and lights.

    python -m bench.masks [--onnx u2netp.onnx] [--python a Python that has rembg]

Each variant is a file that both are given. "As shipped" is the fast resize and some of the network in 8 bits; "32 bits"
is the fast resize alone.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image, ImageEnhance

from bench.rembg import PHOTOS, ask, difference, start_rembg
from bench.results import table, write_section
from schemas.options import Channels, CutoutOptions
from store.settings import Settings
from workers.cutter import Cutter, open_cutter

BOUND = 2.0
"""Mean absolute difference of a mask to rembg's own, in 255ths."""

MASK = CutoutOptions(channels=Channels.ALPHA)
SIDES = (300, 640, 1600, 2448, 4032)
"""Longer sides, in pixels: to 12 megapixels."""


def main() -> None:
    """Compare, print, write."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--onnx", type=Path, help="u2netp.onnx, as rembg fetches it")
    arguments.add_argument("--python", type=Path, help="a Python that has rembg; else .venv-bench is made")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    ways = {"as shipped": cutter(), "32 bits": cutter(exact=True)}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    worst: dict[str, tuple[float, str]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        start_rembg(chosen.python, chosen.onnx, Path(folder)) as rembg,
    ):
        for photo in sorted(PHOTOS.glob("*.jpg")):
            for kind, file in variants(Image.open(photo).convert("RGB")):
                path = Path(folder) / "variant"
                path.write_bytes(file)
                ask(rembg, photo=path, kind="mask", to=Path(folder) / "answer")
                theirs = (Path(folder) / "answer").read_bytes()
                for way, ours in ways.items():
                    off = difference(ours.cut(file, MASK, want_mask=False).file, theirs)
                    found[kind][way].append(off)
                    worst[way] = max(worst.get(way, (0.0, "")), (off, f"{photo.stem}, {kind}"))
    report(found, worst)


def cutter(exact: bool = False) -> Cutter:
    """Ours, for large photos."""
    return open_cutter(Settings(max_megapixels=60, exact=exact))


def variants(photo: Image.Image) -> Iterator[tuple[str, bytes]]:
    """What else could have been sent of this photo, by kind."""
    random = np.random.default_rng(7)
    width, height = photo.size
    for side in SIDES:
        yield f"longer side {side:,}", as_jpeg(scaled(photo, side))
    middle = scaled(photo, 1600)
    for quality in (20, 50, 98):
        yield f"JPEG quality {quality}", as_jpeg(middle, quality)
    yield "PNG", as_png(middle)
    yield "stretched to a square", as_jpeg(photo.resize((1500, 1500), Image.Resampling.LANCZOS))
    yield "left two thirds", as_jpeg(scaled(photo.crop((0, 0, width * 2 // 3, height)), 1600))
    yield "middle half", as_jpeg(scaled(photo.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4)), 1600))
    yield "mirrored", as_jpeg(middle.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    yield "upside down", as_jpeg(middle.transpose(Image.Transpose.ROTATE_180))
    yield "on its side", as_jpeg(middle.transpose(Image.Transpose.ROTATE_90))
    yield "gray", as_jpeg(middle.convert("L"))
    yield "dark", as_jpeg(ImageEnhance.Brightness(middle).enhance(0.4))
    for contrast in (0.5, 0.6, 0.8):
        yield f"pale, contrast {contrast:.0%}", as_jpeg(ImageEnhance.Contrast(middle).enhance(contrast))
    noise = random.normal(0, 12, (middle.height, middle.width, 3))
    yield "noise", as_jpeg(Image.fromarray(np.clip(np.asarray(middle) + noise, 0, 255).astype(np.uint8)))


def scaled(photo: Image.Image, side: int) -> Image.Image:
    """The photo with this longer side."""
    scale = side / max(photo.size)
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)


def as_jpeg(photo: Image.Image, quality: int = 90) -> bytes:
    """Its file."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return file.getvalue()


def as_png(photo: Image.Image) -> bytes:
    """Its file."""
    file = io.BytesIO()
    photo.save(file, "PNG", compress_level=1)
    return file.getvalue()


def report(found: dict[str, dict[str, list[float]]], worst: dict[str, tuple[float, str]]) -> None:
    """Print and write."""
    ways = list(worst)
    rows = [[kind, *(f"{mean(off[way]):.2f} / {max(off[way]):.2f}" for way in ways)] for kind, off in found.items()]
    every = {way: [one for off in found.values() for one in off[way]] for way in ways}
    rows.append(["**all**", *(f"**{mean(every[way]):.2f} / {max(every[way]):.2f}**" for way in ways)])
    over = {way: sum(one > BOUND for one in every[way]) for way in ways}
    told = "; ".join(f"{way}: {over[way]} (worst {worst[way][0]:.2f}, {worst[way][1]})" for way in ways)
    lines = [
        *table(["difference to rembg's mask in 255ths, mean / worst of 5 photos", *ways], rows),
        "",
        f"{len(every[ways[0]])} files. The bound is {BOUND:g}; over it: {told}.",
    ]
    print("\n".join(lines))
    write_section("Masks against rembg", lines)


if __name__ == "__main__":
    main()
