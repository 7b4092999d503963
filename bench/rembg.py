"""bgbatch against rembg 2.0.86: the same photos, the same weights, one thread each, in turn.

    python -m bench.rembg [--onnx u2netp.onnx] [--rounds 3]

Figures are CPU time, the least of some rounds (of one for masks alone), so that other work on the machine counts as
little as can be. rembg gets an environment of its own (.venv-bench), made on the first run. Without --onnx it fetches
its own copy of the weights.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.plots import plots, save
from bench.results import table, write_section
from schemas.options import Channels, CutoutOptions, Format
from store.settings import Settings
from workers.cutter import Cutter, open_cutter

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "portal" / "demo_photos"
ENVIRONMENT = ROOT / ".venv-bench"
SIZES = {"2 MP": (1600, 1200), "12 MP": (4032, 3024)}
KINDS = {
    "png": CutoutOptions(),
    "jpg beside png": CutoutOptions(format=Format.JPG),
    "jpg": CutoutOptions(format=Format.JPG),
    "jpg by bytes": CutoutOptions(format=Format.JPG),
    "mask": CutoutOptions(channels=Channels.ALPHA),
}
TITLES = {
    "png": "PNG",
    "jpg beside png": "JPEG on white, beside rembg's whole call remove(bytes), which gives PNG bytes",
    "jpg by bytes": "also: JPEG on white, rembg's PNG bytes made a JPEG",
    "jpg": "also: JPEG on white, rembg given and giving pillow images, so that it writes no PNG",
    "mask": "mask as PNG",
}
THEIRS = {"jpg beside png": "png"}
"""What rembg is asked for, where it is not the same."""

GOALS = {("png", "12 MP"): (6, 14), ("png", "2 MP"): (2.2, None), ("jpg beside png", "12 MP"): (7, None)}


@dataclass
class Times:
    """Least CPU-ms of one kind on one photo: `whole` call and `network` in it."""

    whole: float = float("inf")
    network: float = 0.0

    def keep(self, whole: float, network: float) -> None:
        """Remember the faster."""
        if whole < self.whole:
            self.whole, self.network = whole, network


@dataclass
class Case:
    """One kind at one size, by photo."""

    rembg: dict[str, Times] = field(default_factory=dict)
    ours: dict[str, Times] = field(default_factory=dict)

    def ratio(self) -> float:
        """CPU time of rembg over ours, over all photos."""
        return sum(t.whole for t in self.rembg.values()) / sum(t.whole for t in self.ours.values())

    def ratio_without_network(self) -> float:
        """The same for everything but the network."""
        rest = [sum(t.whole - t.network for t in side.values()) for side in (self.rembg, self.ours)]
        return rest[0] / rest[1]


def main() -> None:
    """Run both, print and write the table, draw the plot."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--onnx", type=Path, help="u2netp.onnx, as rembg fetches it")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--exact", action="store_true", help="our network in 32 bits throughout")
    arguments.add_argument("--python", type=Path, help="a Python that has rembg; else .venv-bench is made")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    cutter = open_cutter(Settings(max_megapixels=60, exact=chosen.exact))
    spent = count_network_time(cutter)
    with tempfile.TemporaryDirectory() as folder:
        photos = larger_photos(Path(folder))
        with start_rembg(chosen.python, chosen.onnx, Path(folder)) as rembg:
            cases = {(kind, size): Case() for kind in KINDS for size in SIZES}
            differences: dict[str, float] = {}
            sizes: dict[str, float] = {}
            for turn in range(chosen.rounds):
                for (kind, size), case in cases.items():
                    if kind == "mask" and turn:
                        continue
                    for name, path in photos[size].items():
                        theirs = ask(rembg, photo=path, kind=THEIRS.get(kind, kind), to=Path(folder) / "answer")
                        case.rembg.setdefault(name, Times()).keep(theirs["whole"], theirs["network"])
                        source = path.read_bytes()
                        spent[0] = 0.0
                        began = time.process_time()
                        file = cutter.cut(source, KINDS[kind], want_mask=False).file
                        case.ours.setdefault(name, Times()).keep((time.process_time() - began) * 1e3, spent[0] * 1e3)
                        if kind == "mask":
                            differences[f"{name} {size}"] = difference(file, (Path(folder) / "answer").read_bytes())
                        if kind == "png" and not turn:
                            sizes[f"{name} {size}"] = len(file) / pillow_size(file)
    report(cases, differences, sizes, chosen.exact)


def larger_photos(folder: Path) -> dict[str, dict[str, Path]]:
    """The demo photos enlarged to each size, as JPEG of quality 90."""
    made: dict[str, dict[str, Path]] = {}
    for size, pixels in SIZES.items():
        made[size] = {}
        for photo in sorted(PHOTOS.glob("*.jpg")):
            path = folder / f"{photo.stem}-{size.replace(' ', '')}.jpg"
            Image.open(photo).convert("RGB").resize(pixels, Image.Resampling.LANCZOS).save(path, quality=90)
            made[size][photo.stem] = path
    return made


def rembg_python() -> Path:
    """The Python of an environment that holds rembg and nothing of ours."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "rembg[cpu]==2.0.86"], check=True)
    return python


def start_rembg(
    python: Path | None, onnx: Path | None, folder: Path, script: Path = ROOT / "bench" / "rembg_side.py"
) -> subprocess.Popen[str]:
    """Start rembg in a process that waits for requests; without `python` in an environment that is made for it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    if onnx is not None:
        home = folder / "u2net"
        home.mkdir()
        (home / "u2netp.onnx").write_bytes(onnx.read_bytes())
        environment["U2NET_HOME"] = str(home)
    process = subprocess.Popen(
        [str(python or rembg_python()), "-P", str(script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder,
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        if process.poll() is not None:
            raise SystemExit("rembg did not start")
    return process


def ask(rembg: subprocess.Popen[str], **request: str | Path) -> dict[str, float]:
    """One request and its answer, as the script on the other side has them."""
    assert rembg.stdin is not None
    assert rembg.stdout is not None
    rembg.stdin.write(json.dumps(request, default=str) + "\n")
    rembg.stdin.flush()
    answer: dict[str, float] = json.loads(rembg.stdout.readline())
    return answer


def count_network_time(cutter: Cutter) -> list[float]:
    """A cell that gathers the CPU seconds inside our network."""
    spent = [0.0]
    module: Any = cutter.segmenter.module
    began = [0.0]
    module.register_forward_pre_hook(lambda *_: began.__setitem__(0, time.process_time()))
    module.register_forward_hook(lambda *_: spent.__setitem__(0, spent[0] + time.process_time() - began[0]))
    return spent


def difference(ours: bytes, theirs: bytes) -> float:
    """Mean absolute difference of two masks, in 255ths."""
    a, b = (np.asarray(Image.open(io.BytesIO(each)).convert("L")).astype(np.int16) for each in (ours, theirs))
    return float(np.abs(a - b).mean())


def pillow_size(file: bytes) -> int:
    """Bytes of the identical pixels by pillow's default."""
    again = io.BytesIO()
    Image.open(io.BytesIO(file)).save(again, "PNG")
    return len(again.getvalue())


def report(
    cases: dict[tuple[str, str], Case], differences: dict[str, float], sizes: dict[str, float], exact: bool
) -> None:
    """Print, write and draw."""
    rows = []
    for (kind, size), case in cases.items():
        goal, goal_rest = GOALS.get((kind, size), (None, None))
        rows.append(
            [
                TITLES[kind] + f", {size}",
                f"{mean(t.whole for t in case.rembg.values()):.0f}",
                f"{mean(t.whole for t in case.ours.values()):.0f}",
                f"**{case.ratio():.1f}**" + (f" (goal {goal})" if goal else ""),
                " / ".join(f"{mean(t.network for t in side.values()):.0f}" for side in (case.rembg, case.ours)),
                f"{case.ratio_without_network():.1f}" + (f" (goal {goal_rest})" if goal_rest else ""),
            ]
        )
    head = [
        "CPU-ms per photo, one thread",
        "rembg",
        "bgbatch",
        "ratio",
        "network: rembg / bgbatch",
        "ratio without network",
    ]
    worst = max(differences, key=lambda name: differences[name])
    lines = [
        *table(head, rows),
        "",
        f"Five photos, each enlarged to both sizes. Our network: {'32 bits' if exact else 'as shipped'}. "
        f"Masks differ from rembg's own by {mean(differences.values()):.2f}/255 on average, "
        f"{differences[worst]:.2f}/255 on the worst ({worst}); the bound is 2. "
        f"Our PNG has {mean(sizes.values()):.2f} times the bytes of pillow's default on identical pixels, "
        f"{max(sizes.values()):.2f} at most; the bound is 1.2.",
    ]
    print("\n".join(lines))
    write_section("Against rembg" + (", our network in 32 bits" if exact else ""), lines)
    if not exact:
        draw(cases)


def draw(cases: dict[tuple[str, str], Case]) -> None:
    """Bars of CPU-ms, and how many times as fast that is."""
    titles = {
        "png": "PNG",
        "jpg beside png": "JPEG on white, of rembg\nits call, which gives a PNG",
        "jpg": "JPEG on white, of rembg\nwithout a file",
    }
    shown = {f"{titles[kind]}, {size}": case for (kind, size), case in cases.items() if kind in titles}
    figure, axes = plots().subplots(figsize=(9, 4.2))
    places = np.arange(len(shown))
    for offset, label, colour, side in (
        (-0.2, "rembg 2.0.86", "#9aa3ad", "rembg"),
        (0.2, "bgbatch", "#1769aa", "ours"),
    ):
        spent = [mean(t.whole for t in getattr(case, side).values()) for case in shown.values()]
        bars = axes.barh(places + offset, spent, 0.38, label=label, color=colour)
        times = [f": {case.ratio():.1f} times as fast" if side == "ours" else "" for case in shown.values()]
        axes.bar_label(bars, [f" {ms:.0f}{fast}" for ms, fast in zip(spent, times, strict=True)], fontsize=8)
    axes.set_yticks(places, list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("CPU-ms per photo, one thread, network included: less is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, "speed-cpu.png")


if __name__ == "__main__":
    main()
