"""What only a GPU can show: nvJPEG itself, 16 bits there, its memory running out, and its context breaking."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from schemas.options import CutoutOptions
from store.settings import Settings
from tests.workers.images import pixels_of
from tests.workers.photos import PHOTOS
from workers.cutter import Cutter, open_cutter
from workers.device_lane import Made
from workers.order import Order

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WHITE_JPEG = CutoutOptions(format="jpg")
OUTPUTS = [
    WHITE_JPEG,
    CutoutOptions(),
    CutoutOptions(format="jpg", refine=True, despill=True),
    CutoutOptions(refine=True, despill=True),
]


@pytest.fixture(scope="module", params=[False, True], ids=["as it is", "compiled"])
def on_gpu(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cutter:
    """Compiled, which takes a minute, it is recorded as a graph, too."""
    return open_cutter(Settings(home=tmp_path_factory.mktemp("gpu"), device="cuda", compiled=request.param))


def orders(options: CutoutOptions, times: int = 1) -> list[Order]:
    return [Order(photo.read_bytes(), options, want_mask=True) for photo in PHOTOS] * times


@pytest.mark.parametrize("options", OUTPUTS)
def test_cutouts_are_those_of_a_cpu(cutter: Cutter, on_gpu: Cutter, options: CutoutOptions) -> None:
    done = on_gpu.segment([on_gpu.open(order) for order in orders(options)])
    assert {type(each) for each in done} == {Made}, "nvJPEG was there"
    for each, order in zip(done, orders(options), strict=True):
        ours, usual = on_gpu.finish(each), cutter.cut(order.source, options, want_mask=True)
        assert np.abs(pixels_of(ours.mask_png) - pixels_of(usual.mask_png)).mean() <= 2
        assert np.abs(pixels_of(ours.file) - pixels_of(usual.file)).mean() <= 2.5
        assert (ours.width, ours.height) == (usual.width, usual.height)


def kinds_of_jpeg() -> dict[str, bytes]:
    """One photo in every form that a camera, a phone or a program gives it."""
    photo = Image.open(PHOTOS[4]).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    made: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "progressive": (photo, {"progressive": True}),
        "4:4:4": (photo, {"subsampling": 0}),
        "4:2:2": (photo, {"subsampling": 1}),
        "with restarts": (photo, {"restart_marker_rows": 1}),
        "of odd size": (photo.crop((0, 0, photo.width - 1 - photo.width % 2, photo.height - 1 - photo.height % 2)), {}),
        "high": (photo.resize((301, 900)), {}),
        "on its side": (photo, {"exif": turned}),
        "gray": (photo.convert("L"), {}),
        "CMYK": (photo.convert("CMYK"), {}),
        "RGB as it is": (photo, {"keep_rgb": True}),
    }
    files = {kind: io.BytesIO() for kind in made}
    for kind, (image, how) in made.items():
        image.save(files[kind], "JPEG", quality=90, **how)
    files["with its brightness map behind"] = io.BytesIO()  # as phones write it: a JPEG of its own
    photo.save(files["with its brightness map behind"], "MPO", save_all=True, append_images=[photo.resize((80, 60))])
    return {kind: file.getvalue() for kind, file in files.items()}


@pytest.mark.parametrize("options", OUTPUTS)
def test_every_kind_of_jpeg_is_cut_as_on_a_cpu_alone_and_with_all_others(
    cutter: Cutter, on_gpu: Cutter, options: CutoutOptions
) -> None:
    wanted = {kind: Order(source, options, want_mask=True) for kind, source in kinds_of_jpeg().items()}
    together = on_gpu.segment([on_gpu.open(order) for order in wanted.values()])
    for (kind, order), one in zip(wanted.items(), together, strict=True):
        usual = cutter.cut(order.source, options, want_mask=True)
        for ours in (on_gpu.finish(one), on_gpu.cut(order.source, options, want_mask=True)):
            assert (ours.width, ours.height) == (usual.width, usual.height), kind
            assert np.abs(pixels_of(ours.mask_png) - pixels_of(usual.mask_png)).mean() <= 2, kind
            assert np.abs(pixels_of(ours.file) - pixels_of(usual.file)).mean() <= 2.5, kind


def test_two_threads_at_once_give_what_one_gives_alone(on_gpu: Cutter) -> None:
    alone = [each.file for each in on_gpu.segment([on_gpu.open(order) for order in orders(WHITE_JPEG, 5)])]
    answers: list[list[bytes]] = []

    def drive() -> None:
        for _ in range(5):
            done = on_gpu.segment([on_gpu.open(order) for order in orders(WHITE_JPEG, 5)])
            answers.append([each.file for each in done])

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 10
    for answer in answers:
        for ours, usual in zip(answer, alone, strict=True):
            assert np.abs(pixels_of(ours) - pixels_of(usual)).mean() < 0.1


def test_memory_that_runs_out_halves_the_batch_and_every_photo_is_done(on_gpu: Cutter) -> None:
    usual = [on_gpu.finish(each).file for each in on_gpu.segment([on_gpu.open(o) for o in orders(WHITE_JPEG, 6)])]
    torch.cuda.empty_cache()
    if on_gpu.segmenter.running.compiled:
        pytest.skip("a graph has its memory")
    whole = torch.cuda.mem_get_info()[1]
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_reserved()
    try:
        torch.cuda.set_per_process_memory_fraction((held + 500e6) / whole)
        done = on_gpu.segment([on_gpu.open(order) for order in orders(WHITE_JPEG, 6)])
        assert torch.cuda.memory_stats()["num_ooms"] > 0, "it did run out"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for ours, wanted in zip(done, usual, strict=True):
        assert np.abs(pixels_of(on_gpu.finish(ours).file) - pixels_of(wanted)).mean() < 0.5


BREAK = """
import torch
from PIL import Image
from schemas.errors import DeviceBroken
from store.settings import Settings
from tests.workers.photos import PHOTOS
from schemas.options import CutoutOptions
from workers.cutter import open_cutter
from workers.order import Order
import pathlib, sys, tempfile

cutter = open_cutter(Settings(home=pathlib.Path(tempfile.mkdtemp()), device="cuda", compiled=False))
broken = torch.zeros(4, device="cuda")[torch.tensor([10**6], device="cuda")]  # an index that is not there: an assert
try:
    order = Order(PHOTOS[0].read_bytes(), CutoutOptions(format=sys.argv[1]), False)
    cutter.segment([cutter.open(order)])
except DeviceBroken:
    print("told")
"""


@pytest.mark.parametrize("format", ["jpg", "png"])
def test_a_broken_context_is_told_from_all_else(format: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", BREAK, format],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert told.stdout.strip() == "told", told.stderr[-2000:]
