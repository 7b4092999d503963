"""How good are the edges? Known foregrounds over many backgrounds, and rembg's three ways beside ours.

    python -m bench.quality [--python a Python that has rembg]

Foregrounds with soft alpha are generated (hair, glass, spokes, antennas) or cut from the demo photos; each is put over
backgrounds of several kinds. All methods get the same coarse mask: the true alpha at 320 × 320, blurred as a
network's mask is. So what is measured is what each makes of a mask, not the network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.plots import plots, save
from bench.rembg import PHOTOS, ask, start_rembg
from bench.results import table, write_section
from schemas.options import Channels, CutoutOptions
from store.settings import Settings
from workers.cutter import open_cutter
from workers.foreground import despilled
from workers.refine import refined

Floats = npt.NDArray[np.float32]
SIZE = (800, 600)
TWO_MEGAPIXELS = (1632, 1224)
MEASURES = ("SAD", "MSE", "gradient", "connectivity", "edge colour", "CPU-ms")
FORMATS = {"gradient": ".3f", "CPU-ms": ".0f"}
SHOWN = ("hair", 2)
"""The subject, and the number of its background, of which a picture is made."""

PICTURED = ("rembg default", "rembg decontaminate", "rembg alpha matting", "bgbatch refine + despill")
WINDOW = (420, 120, 620, 320)
"""Of the picture: left, top, right, bottom."""


@dataclass(frozen=True)
class Subject:
    """A foreground: colours and the true alpha, on 0…1."""

    name: str
    colours: Floats
    alpha: Floats


def main() -> None:
    """Measure, print, write, draw."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--python", type=Path, help="a Python that has rembg; else .venv-bench is made")
    chosen = arguments.parse_args()
    cv2.setNumThreads(1)
    random = np.random.default_rng(7)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    large: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("rembg_quality_side.py")
        with start_rembg(chosen.python, None, Path(folder), script) as rembg:
            for subject in subjects(random):
                for number, background in enumerate(backgrounds(random)):
                    photo = composite(subject, background)
                    made = methods(photo, coarse(subject.alpha), rembg, Path(folder))
                    for way, (rgba, spent) in made.items():
                        found[way].append(measured(rgba, subject) | {"CPU-ms": spent})
                    if (subject.name, number) == SHOWN:
                        picture(photo, subject, {way: made[way] for way in PICTURED})
                    large.append(at_two_megapixels(subject, background))
    means = {way: {m: float(np.mean([row[m] for row in rows])) for m in MEASURES} for way, rows in found.items()}
    report(means, float(np.mean(large)))


def methods(photo, mask, rembg, folder: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Each method's RGBA and CPU-ms, the resize of the mask left out."""
    Image.fromarray(photo).save(folder / "photo.png")
    Image.fromarray(mask).save(folder / "mask.png")
    spent = ask(rembg, photo=folder / "photo.png", mask=folder / "mask.png", to=folder)
    made = {f"rembg {way}": (np.load(folder / f"{way}.npy"), spent[way]) for way in spent}
    up = np.asarray(cv2.resize(mask, photo.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    refined(photo, up)  # once before the clock runs: the first call compiles
    despilled(photo, up)
    began = time.process_time()
    alpha = refined(photo, up)
    middle = time.process_time()
    made["bgbatch refine"] = (np.dstack((photo, alpha)), (middle - began) * 1e3)
    colours = despilled(photo, alpha)
    made["bgbatch refine + despill"] = (np.dstack((colours, alpha)), (time.process_time() - began) * 1e3)
    began = time.process_time()
    colours = despilled(photo, up)
    made["bgbatch despill"] = (np.dstack((colours, up)), (time.process_time() - began) * 1e3)
    made["bgbatch default"] = (np.dstack((photo, up)), 0.0)
    return made


def measured(rgba: np.ndarray, subject: Subject) -> dict[str, float]:
    """The errors of one cutout. SAD in thousands of pixels, MSE in thousandths, the other two in thousands."""
    alpha, truth = rgba[:, :, 3].astype(np.float32) / 255, subject.alpha
    difference = alpha - truth
    edge = (truth > 0.1) & (truth < 0.9)
    colour = np.abs(rgba[:, :, :3].astype(np.float32) - subject.colours * 255).mean(2)
    return {
        "SAD": float(np.abs(difference).sum() / 1e3),
        "MSE": float((difference**2).mean() * 1e3),
        "gradient": float(((slope(alpha) - slope(truth)) ** 2).sum() / 1e3),
        "connectivity": float(np.abs(connected(alpha) - connected(truth)).sum() / 1e3),
        "edge colour": float(np.average(colour[edge], weights=truth[edge])),
    }


def slope(alpha: Floats) -> Floats:
    """Magnitude of the gradient by derivatives of a Gaussian of 1.4 pixels, as alphamatting.com measures it."""
    smooth = cv2.GaussianBlur(alpha, (0, 0), 1.4)
    return np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(smooth, cv2.CV_32F, 0, 1) / 8)


def connected(alpha: Floats) -> Floats:
    """Per pixel the highest of ten levels at which it hangs together with the largest solid part."""
    level = np.zeros_like(alpha)
    for threshold in np.arange(0.1, 1.0, 0.1):
        count, labels, statistics, _ = cv2.connectedComponentsWithStats((alpha >= threshold).astype(np.uint8))
        if count > 1:
            level[labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))] = threshold
    return np.where(alpha - level < 0.15, alpha, level).astype(np.float32)


def composite(subject: Subject, background: Floats) -> np.ndarray:
    """What the camera sees."""
    share = subject.alpha[:, :, None]
    return np.clip((subject.colours * share + background * (1 - share)) * 255 + 0.5, 0, 255).astype(np.uint8)


def coarse(alpha: Floats) -> np.ndarray:
    """As a network at 320 × 320 answers: smaller, a little blurred."""
    small = cv2.resize(alpha, (320, 320), interpolation=cv2.INTER_AREA)
    return np.clip(cv2.GaussianBlur(small, (0, 0), 0.8) * 255 + 0.5, 0, 255).astype(np.uint8)


def subjects(random: np.random.Generator) -> list[Subject]:
    """Generated ones, and what the demo photos show."""
    made = [hair(random), glass(random), wheel(random), antennas(random)]
    for name in ("coffee", "motorcycle"):
        photo = np.asarray(Image.open(PHOTOS / f"{name}.jpg").convert("RGB").resize(SIZE), np.float32) / 255
        made.append(Subject(name, photo, outline(name)))
    return made


def _canvas() -> tuple[int, int]:
    return SIZE[1], SIZE[0]


def _texture(random: np.random.Generator, base: tuple[float, float, float], amount: float) -> Floats:
    noise = cv2.resize(random.normal(0, amount, (75, 100, 3)).astype(np.float32), SIZE, interpolation=cv2.INTER_CUBIC)
    return np.clip(np.array(base, np.float32) + noise, 0, 1)


def _drawn(strokes: list[tuple[np.ndarray, int]], opacity: float = 1.0) -> Floats:
    """Polylines at four times the size, so that their edges are smooth."""
    large = np.zeros((SIZE[1] * 4, SIZE[0] * 4), np.uint8)
    for points, width in strokes:
        cv2.polylines(large, [(points * 4).astype(np.int32)], False, 255, width)
    return cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 * opacity


def hair(random: np.random.Generator) -> Subject:
    """A head with strands that stand off."""
    alpha = np.zeros(_canvas(), np.float32)
    cv2.ellipse(alpha, (400, 360), (140, 180), 0, 0, 360, 1.0, -1)
    strokes = []
    for angle in random.uniform(0, 2 * np.pi, 260):
        along = np.linspace(0, 1, 12)
        bend = angle + random.normal(0, 0.5) * along
        reach = 1 + along * random.uniform(0.1, 0.4)
        strokes.append((np.stack((400 + 138 * np.cos(bend) * reach, 360 + 178 * np.sin(bend) * reach), 1), 4))
    alpha = np.maximum(cv2.GaussianBlur(alpha, (0, 0), 0.8), _drawn(strokes, 0.8))
    return Subject("hair", _texture(random, (0.30, 0.18, 0.10), 0.05), alpha)


def glass(random: np.random.Generator) -> Subject:
    """A bottle whose middle one can see through."""
    alpha = np.zeros(_canvas(), np.float32)
    cv2.rectangle(alpha, (300, 120), (500, 540), 1.0, -1)
    cv2.rectangle(alpha, (330, 150), (470, 510), 0.35, -1)
    return Subject("glass", _texture(random, (0.35, 0.62, 0.55), 0.06), cv2.GaussianBlur(alpha, (0, 0), 2))


def wheel(random: np.random.Generator) -> Subject:
    """A rim with thin spokes."""
    large = np.zeros((SIZE[1] * 4, SIZE[0] * 4), np.uint8)
    cv2.circle(large, (1600, 1200), 880, 255, 200)
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        end = (int(1600 + 860 * np.cos(angle)), int(1200 + 860 * np.sin(angle)))
        cv2.line(large, (1600, 1200), end, 255, 24)
    alpha = cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return Subject("wheel", _texture(random, (0.55, 0.56, 0.60), 0.08), alpha)


def antennas(random: np.random.Generator) -> Subject:
    """A box with rods that are two to three pixels thin."""
    alpha = np.zeros(_canvas(), np.float32)
    cv2.rectangle(alpha, (180, 340), (620, 520), 1.0, -1)
    rods = [(np.array([[x, 345], [x + random.uniform(-60, 60), 60]]), 10) for x in range(220, 620, 60)]
    alpha = np.maximum(cv2.GaussianBlur(alpha, (0, 0), 0.7), _drawn(rods))
    return Subject("antennas", _texture(random, (0.75, 0.15, 0.12), 0.06), alpha)


def outline(name: str) -> Floats:
    """The demo photo's subject by our own mask, made decided: a plausible shape with a thin soft edge."""
    cut = open_cutter(Settings()).cut(
        (PHOTOS / f"{name}.jpg").read_bytes(), CutoutOptions(channels=Channels.ALPHA), False
    )
    mask = cv2.imdecode(np.frombuffer(cut.file, np.uint8), cv2.IMREAD_GRAYSCALE)
    solid = (cv2.resize(mask, SIZE, interpolation=cv2.INTER_CUBIC) > 140).astype(np.float32)
    return cv2.GaussianBlur(solid, (0, 0), 1.0)


def backgrounds(random: np.random.Generator) -> list[Floats]:
    """A studio's wall, a gradient, grass, bricks, and a blurred photo."""
    height, width = _canvas()
    wall = _texture(random, (0.82, 0.82, 0.80), 0.01)
    ramp = np.linspace(0, 1, width, dtype=np.float32)[None, :, None] * np.array((0.2, 0.4, 0.9), np.float32)
    gradient = np.broadcast_to(ramp, (height, width, 3)).astype(np.float32)
    grass = np.clip(random.normal(0.4, 0.12, (height, width, 1)) * np.array((0.6, 1.2, 0.4)), 0, 1).astype(np.float32)
    bricks = np.full((height, width, 3), (0.55, 0.25, 0.2), np.float32)
    bricks[::40] = bricks[1::40] = 0.75
    bricks[:, ::90] = bricks[:, 1::90] = 0.75
    rocket = np.asarray(Image.open(PHOTOS / "rocket.jpg").convert("RGB").resize(SIZE), np.float32) / 255
    return [wall, gradient, cv2.GaussianBlur(grass, (0, 0), 1.2), bricks, cv2.GaussianBlur(rocket, (0, 0), 5)]


def at_two_megapixels(subject: Subject, background: Floats) -> float:
    """CPU-ms of refining and despilling the same as a camera gives it, the resize of the mask left out."""
    photo = cv2.resize(composite(subject, background), TWO_MEGAPIXELS, interpolation=cv2.INTER_CUBIC)
    up = np.asarray(cv2.resize(coarse(subject.alpha), TWO_MEGAPIXELS, interpolation=cv2.INTER_CUBIC), np.uint8)
    began = time.process_time()
    despilled(photo, refined(photo, up))
    return (time.process_time() - began) * 1e3


def report(means: dict[str, dict[str, float]], large: float) -> None:
    """Print, write and draw. `large`: CPU-ms of refining and despilling 2 MP."""
    rows = [[way, *(f"{values[m]:{FORMATS.get(m, '.2f')}}" for m in MEASURES)] for way, values in means.items()]
    ours, plain, clean = means["bgbatch refine + despill"], means["rembg default"], means["rembg decontaminate"]
    gradient = 1 - ours["gradient"] / plain["gradient"]
    colour = 1 - ours["edge colour"] / clean["edge colour"]
    head = ["errors, mean of 6 subjects × 5 backgrounds", *MEASURES]
    lines = [
        *table(head, rows),
        "",
        f"Refined and despilled, the gradient error is {gradient:.0%} below rembg's default (goal 25 %), and the edge "
        f"colour error {colour:.0%} below its decontamination. 800 × 600 pixels; CPU-ms without the mask's resize. Of "
        f"2 MP refining and despilling take {large:.0f} CPU-ms (goal 60).",
    ]
    print("\n".join(lines))
    write_section("Edges against rembg", lines)
    draw(means)


def picture(photo: np.ndarray, subject: Subject, made: dict[str, tuple[np.ndarray, float]]) -> None:
    """A piece of the photo, of its cutouts on another colour, and of what is true, side by side."""
    solid = np.full((*photo.shape[:2], 1), 255, np.uint8)
    true = np.dstack((subject.colours * 255, subject.alpha * 255)).astype(np.uint8)
    shown = {f"{way}\n{spent:,.0f} CPU-ms": rgba for way, (rgba, spent) in made.items()}
    shown = {"the photo\n": np.dstack((photo, solid)), **shown, "what is true\n": true}
    figure, each = plots().subplots(1, len(shown), figsize=(12, 2.6))
    for axes, (title, rgba) in zip(each, shown.items(), strict=True):
        paper = Image.new("RGBA", SIZE, "#f4d9e3")
        paper.alpha_composite(Image.fromarray(rgba))
        axes.imshow(paper.crop(WINDOW), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    save(figure, "quality-hair.png")


def draw(means: dict[str, dict[str, float]]) -> None:
    """Bars of the two errors that the goals are about."""
    figure, both = plots().subplots(1, 2, figsize=(9, 3.2), sharey=True)
    ways = sorted(means, key=lambda way: -means[way]["gradient"] - means[way]["edge colour"])
    for axes, measure in zip(both, ("gradient", "edge colour"), strict=True):
        colours = ["#1769aa" if way.startswith("bgbatch") else "#9aa3ad" for way in ways]
        bars = axes.barh(ways, [means[way][measure] for way in ways], color=colours)
        axes.bar_label(bars, fmt=f"%{FORMATS.get(measure, '.1f')}", fontsize=8)
        axes.set_title(f"{measure} error: less is better", fontsize=10)
        axes.margins(x=0.12)  # for the figures beside the bars
        axes.spines[["top", "right"]].set_visible(False)
    both[0].invert_yaxis()
    save(figure, "quality-edges.png")


if __name__ == "__main__":
    main()
