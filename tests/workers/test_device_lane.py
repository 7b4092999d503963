"""The way of a GPU, run on a CPU: all of it but nvJPEG itself, whose place libjpeg takes."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch._dynamo.utils import counters

from schemas.errors import DamagedImage, DeviceBroken
from schemas.options import CutoutOptions, parse_options
from schemas.results import Failed
from store.objects.object_store import open_store
from store.settings import Settings
from store.transient.transient_store import TransientStore
from tests.workers.conftest import coarse
from tests.workers.icc import display_p3
from tests.workers.images import in_adobe_rgb, pixels_of, saved
from tests.workers.photos import PHOTOS
from tests.workers.test_shard import NOW, manifest_of
from workers import composite, device_edges, reduce
from workers import decode as on_host
from workers.compiling import keep_compiled_in
from workers.composite import on_colour as composed_on_host
from workers.cutter import Cutter
from workers.decode import Limits
from workers.device_lane import Made, Taken, TorchvisionJpegs
from workers.device_pixels import full_alpha, halved, on_colour, squeezed, upright
from workers.encode import JPEG_QUALITY, write_jpeg
from workers.foreground import despilled
from workers.jpeg_file import without_segments
from workers.lanes import Pace
from workers.networks.registry import find_network
from workers.order import Opened, Order
from workers.refine import refined
from workers.running import Running
from workers.segmenter import Segmenter
from workers.shard import process_shard

PHOTO_PATH = PHOTOS[1]
PHOTO = PHOTO_PATH.read_bytes()
WHITE_JPEG = CutoutOptions(format="jpg")


class Libjpeg:
    """JPEGs on the CPU, and what was asked of it: how many photos each time."""

    def __init__(self, error: str = "") -> None:
        self.error, self.decoded, self.encoded = error, [], []

    def decode(self, files: Sequence[bytes]) -> list[torch.Tensor]:
        self.decoded.append(len(files))
        if self.error:
            raise RuntimeError(self.error)
        return [chw(np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))) for file in files]

    def encode(self, photos: Sequence[torch.Tensor]) -> list[bytes]:
        self.encoded.append(len(photos))
        return [write_jpeg(hwc(photo)) for photo in photos]


def chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def hwc(photo: torch.Tensor) -> np.ndarray:
    return photo.permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def cutter(cutter: Cutter) -> Cutter:
    return coarse(cutter)


def on_the_lane(cutter: Cutter, jpegs: Libjpeg) -> Cutter:
    return Cutter(cutter.segmenter, cutter.network, cutter.weights_sha256, cutter.limits, jpegs=jpegs)


def turned(orientation: int) -> bytes:
    image = Image.open(io.BytesIO(PHOTO))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_on_the_device_as_on_the_host(orientation):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(hwc(upright(chw(pixels), orientation)), on_host.upright(pixels, orientation))


@pytest.mark.parametrize("size", [(3024, 4032), (1200, 1600), (1921, 501), (100, 90)])
def test_a_photo_is_made_smaller_on_the_device_as_on_the_host(size):
    pixels = np.asarray(Image.open(io.BytesIO(PHOTO)).convert("RGB").resize(size[::-1]))
    small = reduce.halved(pixels, 320)
    assert np.abs(hwc(halved(chw(pixels), 320)).astype(int) - small).max() <= 1
    difference = squeezed(chw(small), 320).numpy().astype(int) - reduce.squeezed(small, 320)
    assert np.abs(difference).max() <= 1


def test_a_photo_is_put_on_a_colour_on_the_device_exactly_as_on_the_host():
    every = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)
    pixels, alpha = np.dstack((every[:, :, 0],) * 3), np.ascontiguousarray(every[:, :, 1])
    for colour in ((255, 255, 255, 255), (0, 7, 130, 255)):
        ours = hwc(on_colour(chw(pixels), torch.from_numpy(alpha), torch.tensor(colour[:3])))
        assert np.array_equal(ours, composed_on_host(pixels, alpha, colour))


def test_a_jpeg_on_white_is_made_on_the_device_and_looks_as_the_hosts(cutter):
    jpegs = Libjpeg()
    lane = on_the_lane(cutter, jpegs)
    (made,) = lane.segment([lane.open(Order(PHOTO, WHITE_JPEG, want_mask=True))])
    assert isinstance(made, Made)
    ours, usual = lane.finish(made), cutter.cut(PHOTO, WHITE_JPEG, want_mask=True)
    assert np.abs(pixels_of(ours.file) - pixels_of(usual.file)).mean() < 0.5
    assert np.abs(pixels_of(ours.mask_png) - pixels_of(usual.mask_png)).max() <= 3
    assert ours.scores.model_dump() == pytest.approx(usual.scores.model_dump(), abs=0.01)
    assert (ours.width, ours.height, ours.flags) == (usual.width, usual.height, usual.flags)


@pytest.mark.parametrize("photo", PHOTOS)
def test_the_rows_of_a_png_are_made_on_the_device_and_only_deflated_on_the_host(cutter, photo):
    lane = on_the_lane(cutter, Libjpeg())
    (made,) = lane.segment([lane.open(Order(photo.read_bytes(), CutoutOptions(), want_mask=True))])
    assert isinstance(made, Made)
    ours, usual = lane.finish(made), cutter.cut(photo.read_bytes(), CutoutOptions(), want_mask=True)
    alpha = pixels_of(ours.mask_png)
    assert np.abs(alpha - pixels_of(usual.mask_png)).mean() <= 1
    cut_out = composite.cut_out(np.asarray(Image.open(photo).convert("RGB")), alpha.astype(np.uint8))
    assert np.array_equal(pixels_of(ours.file), cut_out)
    assert len(ours.file) <= 1.05 * len(usual.file)
    assert (ours.width, ours.height, ours.flags) == (usual.width, usual.height, usual.flags)


EDGES = [{"refine": True}, {"despill": True}, {"refine": True, "despill": True}]


@pytest.mark.parametrize("format", ["jpg", "png"])
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("photo", PHOTOS[1:4])
def test_soft_edges_are_worked_out_on_the_device_as_on_the_host(cutter, photo, edges, format):
    lane, options = on_the_lane(cutter, Libjpeg()), CutoutOptions(format=format, **edges)
    (made,) = lane.segment([lane.open(Order(photo.read_bytes(), options, want_mask=True))])
    assert isinstance(made, Made)
    ours, usual, plain = (
        lane.finish(made),
        cutter.cut(photo.read_bytes(), options, want_mask=True),
        cutter.cut(photo.read_bytes(), CutoutOptions(format=format), want_mask=True),
    )
    alpha = pixels_of(usual.mask_png)
    soft = (alpha > 5) & (alpha < 250)
    difference, change = (np.abs(pixels_of(ours.file) - pixels_of(each.file))[soft].mean() for each in (usual, plain))
    assert difference < min(2.0, 0.5 * change)
    assert np.abs(pixels_of(ours.mask_png) - alpha).mean() <= 1
    assert (ours.width, ours.height, ours.flags) == (usual.width, usual.height, usual.flags)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"format": "webp"}, set()),
        ({"format": "jpg", "shadow": "true"}, set()),
        ({"format": "png", "bg_color": "#f008"}, set()),
        ({"format": "png", "crop": "true"}, {"despill"}),
        ({"format": "png", "size": "preview"}, {"despill"}),
        ({"format": "png", "consistent": "true"}, {"refine", "despill"}),
    ],
)
def test_soft_edges_of_other_outputs_are_worked_out_on_the_device_too(cutter, options, left):
    """What is framed or scaled down is despilled as it is then: on the host."""
    larger_than_a_preview = Image.open(PHOTOS[1]).resize((902, 600))
    source = saved(larger_than_a_preview, "JPEG", quality=95)
    lane, wanted = on_the_lane(cutter, Libjpeg()), parse_options(options | {"refine": "true", "despill": "true"})
    (opened,) = lane.segment([lane.open(Order(source, wanted, want_mask=True))])
    assert isinstance(opened, Opened)
    assert {name for name in ("refine", "despill") if getattr(opened.order.options, name)} == left
    ours, usual = lane.finish(opened), cutter.cut(source, wanted, want_mask=True)
    plain = cutter.cut(source, parse_options(options), want_mask=True)
    assert (ours.width, ours.height, ours.flags) == (usual.width, usual.height, usual.flags)
    assert np.abs(pixels_of(ours.mask_png) - pixels_of(usual.mask_png)).mean() <= 1
    assert np.abs(pixels_of(ours.mask_png) - pixels_of(plain.mask_png)).mean() > 1
    soft = (pixels_of(usual.file)[..., -1] > 5) & (pixels_of(usual.file)[..., -1] < 250)
    assert np.abs(pixels_of(ours.file) - pixels_of(usual.file))[soft].mean() < 2


@pytest.mark.parametrize("around", [0, 255])
def test_a_mask_without_sure_subject_or_sure_background_stays_as_it_is_and_its_neighbours_do_not(around):
    random = np.random.default_rng(1)
    photos = torch.from_numpy(random.integers(0, 256, (2, 3, 300, 401), np.uint8))
    one = np.zeros((300, 401), np.uint8)
    one[100:200, 100:300] = 255
    masks = [cv2.GaussianBlur(each, (0, 0), 5) for each in (np.where(one, np.uint8(128), np.uint8(around)), one)]
    alphas = torch.from_numpy(np.stack(masks))
    for made, given in (
        (device_edges.refined(photos, alphas), alphas),
        (device_edges.despilled(photos, alphas), photos),
    ):
        assert torch.equal(made[0], given[0])
        assert not torch.equal(made[1], given[1])


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (1200, 2), (501, 1100), (1003, 64), (2, 5000)])
def test_soft_edges_of_any_size_are_those_of_the_host(shape):
    random = np.random.default_rng(2)
    photo = cv2.GaussianBlur(random.integers(0, 256, (*shape, 3), np.uint8), (0, 0), 2).reshape(*shape, 3)
    alpha = np.zeros(shape, np.uint8)
    alpha[shape[0] // 3 :, shape[1] // 4 : -(-shape[1] * 3 // 4)] = 255
    alpha = cv2.GaussianBlur(alpha, (0, 0), 4)
    on_device = photo.transpose(2, 0, 1)[None], alpha[None]
    worked_out = device_edges.refined(*map(torch.tensor, on_device))[0].numpy()
    assert np.abs(worked_out.astype(int) - refined(photo, alpha)).max() <= 1
    colours = hwc(device_edges.despilled(*map(torch.tensor, on_device))[0])
    assert np.abs(colours.astype(int) - despilled(photo, alpha)).mean() < 1


@pytest.mark.parametrize(
    "options",
    [
        {"format": "png", "channels": "alpha"},
        {"format": "png", "bg_color": "red"},
        {"format": "jpg", "crop": "true"},
        {"format": "jpg", "shadow": "true"},
        {"format": "jpg", "crop": "true", "refine": "true", "despill": "true"},
        {"format": "webp", "refine": "true", "despill": "true"},
        {"format": "zip"},
    ],
)
def test_for_other_outputs_the_device_decodes_and_the_host_goes_on(cutter, options):
    lane = on_the_lane(cutter, Libjpeg())
    wanted = parse_options(options)
    (opened,) = lane.segment([lane.open(Order(PHOTO, wanted, want_mask=False))])
    assert isinstance(opened, Opened)
    ours, usual = lane.finish(opened), cutter.cut(PHOTO, wanted, want_mask=False)
    assert (ours.width, ours.height) == (usual.width, usual.height)
    assert ours.flags == usual.flags


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_that_lies_on_its_side_is_delivered_upright(cutter, orientation):
    ours = on_the_lane(cutter, Libjpeg()).cut(turned(orientation), WHITE_JPEG, want_mask=False)
    usual = cutter.cut(turned(orientation), WHITE_JPEG, want_mask=False)
    assert np.abs(pixels_of(ours.file) - pixels_of(usual.file)).mean() < 0.5


def test_an_odd_exif_is_no_line_in_the_log(cutter, recwarn):
    """Pillow warns of two values where one is due."""
    two = b"Exif\0\0" + struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, 3, 2, 6, 3, 0)
    opened = on_the_lane(cutter, Libjpeg()).open(
        Order(saved(Image.open(PHOTO_PATH), "JPEG", exif=two), WHITE_JPEG, False)
    )
    assert isinstance(opened, Taken)
    assert opened.orientation == 6
    assert not recwarn.list


def test_several_are_decoded_segmented_and_encoded_together_and_stay_in_order(cutter):
    jpegs = Libjpeg()
    lane = on_the_lane(cutter, jpegs)
    orders = [Order(photo.read_bytes(), WHITE_JPEG, want_mask=False) for photo in PHOTOS]
    png = io.BytesIO()
    Image.open(PHOTOS[0]).save(png, "PNG")
    orders.insert(2, Order(png.getvalue(), WHITE_JPEG, want_mask=False))
    done = lane.segment([lane.open(order) for order in orders])
    assert [each.order for each in done] == orders
    assert (jpegs.decoded, jpegs.encoded) == ([5], [5])
    assert isinstance(done[2], Opened)


def test_photos_of_several_sizes_and_colours_are_done_together_each_as_it_would_be_alone(cutter):
    small = io.BytesIO()
    Image.open(PHOTOS[0]).resize((400, 700)).save(small, "JPEG")
    orders = [
        Order(source, CutoutOptions(format=format, bg_color=colour, **edges), want_mask)
        for source in (PHOTO, small.getvalue(), turned(6))
        for format, colour, want_mask in (("jpg", "red", True), ("png", None, False), ("png", "red", True))
        for edges in ({}, EDGES[2])
    ]
    lane = on_the_lane(cutter, Libjpeg())
    together = [lane.finish(each) for each in lane.segment([lane.open(order) for order in orders])]
    assert together == [lane.finish(lane.segment([lane.open(order)])[0]) for order in orders]


@pytest.mark.parametrize("pixels_at_once", [1, 2 * 451 * 300, 10**9])
def test_photos_of_one_size_are_not_mixed_up(cutter, monkeypatch, pixels_at_once):
    monkeypatch.setattr("workers.device_lane._PIXELS_AT_ONCE", pixels_at_once)
    sources = []
    for place in range(5):
        file = io.BytesIO()
        Image.open(PHOTO_PATH).rotate(7 * place).save(file, "JPEG")
        sources.append(file.getvalue())
    orders = [Order(source, CutoutOptions(format=format), True) for source in sources for format in ("jpg", "png")]
    lane = on_the_lane(cutter, Libjpeg())
    together = [lane.finish(each) for each in lane.segment([lane.open(order) for order in orders])]
    assert together == [lane.finish(lane.segment([lane.open(order)])[0]) for order in orders]


def test_a_jpeg_that_the_device_cannot_decode_is_cut_on_the_host_and_its_neighbours_stay(cutter):
    class Picky(Libjpeg):
        def decode(self, files):
            if PHOTO in files:
                raise RuntimeError("nvjpegDecode failed: NVJPEG_STATUS_JPEG_NOT_SUPPORTED")
            return super().decode(files)

    lane = on_the_lane(cutter, Picky())
    sources = [PHOTOS[0].read_bytes(), PHOTO, PHOTOS[2].read_bytes()]
    done = lane.segment([lane.open(Order(source, WHITE_JPEG, want_mask=False)) for source in sources])
    assert [type(each) for each in done] == [Made, Opened, Made]
    assert lane.finish(done[1]).file == cutter.cut(PHOTO, WHITE_JPEG, want_mask=False).file


DAMAGED = PHOTO[: len(PHOTO) // 2] + PHOTO[-2:]


class Damageable(Libjpeg):
    def decode(self, files):
        if DAMAGED in files:
            self.decoded.append(len(files))
            raise RuntimeError("nvjpegDecode failed: NVJPEG_STATUS_BAD_JPEG")
        return super().decode(files)


def test_a_damaged_jpeg_costs_its_neighbours_nothing_and_is_told_when_it_is_alone(cutter):
    lane = on_the_lane(cutter, Damageable())
    orders = [Order(source, WHITE_JPEG, want_mask=False) for source in (PHOTO, DAMAGED, PHOTO)]
    done = lane.segment([lane.open(order) for order in orders])
    assert [type(each) for each in done] == [Made, Taken, Made]
    with pytest.raises(DamagedImage):
        lane.segment([done[1]])


def test_a_damaged_jpeg_in_a_shard_is_its_own_failure_and_the_others_are_not_run_again(cutter, tmp_path):
    settings = Settings(home=tmp_path)
    transient = TransientStore(open_store(settings.transient_root, settings), lambda: NOW)
    manifest = manifest_of([PHOTO, PHOTO, DAMAGED, PHOTO], transient)
    jpegs = Damageable()
    lane = on_the_lane(cutter, jpegs)
    lane.pace = Pace(1, 1, batch=4, drivers=2)
    report = process_shard(transient, lane, manifest, range(1, 5), lambda: NOW)
    codes = [each.code if isinstance(each, Failed) else each.outcome for each in report.results]
    assert codes == ["done", "done", "damaged_image", "done"]
    assert jpegs.decoded == [4, 2, 2, 1, 1, 1]  # halved until it was found, and once more alone


def in_rgb(has_marker: bool) -> bytes:
    """A JPEG that holds red, green and blue as they are."""
    file = io.BytesIO()
    Image.open(PHOTO_PATH).convert("RGB").save(file, "JPEG", quality=90, keep_rgb=True)
    return file.getvalue() if has_marker else without_segments(file.getvalue(), (0xEE,))


def in_what_adobe_does_not_know() -> bytes:
    """A JPEG of three channels which are said to be stored as four are."""
    return PHOTO[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\2" + without_segments(PHOTO, (0xE0,))[2:]


@pytest.mark.parametrize(
    "photo", [in_rgb(True), in_rgb(False), in_what_adobe_does_not_know()], ids=["said", "by name", "unknown"]
)
def test_a_jpeg_whose_channels_may_be_no_luma_and_colour_never_reaches_the_device(cutter, photo):
    jpegs = Libjpeg()
    ours = on_the_lane(cutter, jpegs).cut(photo, WHITE_JPEG, want_mask=False)
    assert jpegs.decoded == []
    assert ours.file == cutter.cut(photo, WHITE_JPEG, want_mask=False).file


@pytest.mark.parametrize("colours", ["by a camera's word", "by a profile"])
def test_a_jpeg_in_other_colours_than_srgb_never_reaches_the_device(cutter, colours):
    image, jpegs = Image.open(PHOTO_PATH), Libjpeg()
    photo = in_adobe_rgb(image) if colours == "by a camera's word" else saved(image, "JPEG", icc_profile=display_p3())
    on_the_lane(cutter, jpegs).cut(photo, WHITE_JPEG, want_mask=False)
    assert jpegs.decoded == []


def test_files_come_from_torchvision_whole_and_in_order(monkeypatch):
    io_of_torchvision = ModuleType("torchvision.io")
    io_of_torchvision.ImageReadMode = SimpleNamespace(RGB="RGB")
    io_of_torchvision.decode_jpeg = lambda files, mode, device: [file[:12].view(3, 2, 2) for file in files]
    io_of_torchvision.encode_jpeg = lambda photos, quality: [photo.flatten()[quality:] for photo in photos]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.io", io_of_torchvision)
    jpegs = TorchvisionJpegs(torch.device("cpu"))
    photos = [
        torch.arange(first, first + 3 * size * size).to(torch.uint8).view(3, size, size)
        for first, size in ((0, 9), (7, 10), (90, 6))
    ]
    assert jpegs.encode(photos) == [bytes(photo.flatten().tolist())[JPEG_QUALITY:] for photo in photos]
    assert [photo.flatten().tolist() for photo in jpegs.decode([bytes(range(20)), bytes(12)])] == [
        [*range(12)],
        [0] * 12,
    ]


@pytest.mark.parametrize(
    "behind", [b"SEFT and other notes of a phone's", b"ftypmp42 a film \xff\xd9 and more", bytes(512)]
)
def test_what_a_phone_hangs_behind_a_jpeg_keeps_it_from_no_device(cutter, behind):
    jpegs, seen = Libjpeg(), []
    decode = jpegs.decode
    jpegs.decode = lambda files: seen.extend(files) or decode(files)
    ours = on_the_lane(cutter, jpegs).cut(PHOTO + behind, WHITE_JPEG, want_mask=False)
    assert seen == [PHOTO]
    assert np.abs(pixels_of(ours.file) - pixels_of(cutter.cut(PHOTO, WHITE_JPEG, want_mask=False).file)).mean() < 0.5


def test_a_jpeg_that_ends_too_early_never_reaches_the_device(cutter):
    jpegs = Libjpeg()
    with pytest.raises(DamagedImage):
        on_the_lane(cutter, jpegs).cut(PHOTO[: len(PHOTO) // 2], WHITE_JPEG, want_mask=False)
    assert jpegs.decoded == []


@pytest.mark.parametrize("said", ["CUDA error: an illegal memory access was encountered", "CUDA ERROR: 700"])
def test_a_broken_context_is_told_from_a_photo_that_cannot_be_decoded(cutter, said):
    lane = on_the_lane(cutter, Libjpeg(said))
    with pytest.raises(DeviceBroken):
        lane.cut(PHOTO, WHITE_JPEG, want_mask=False)


def test_the_mask_is_spread_on_the_device_as_on_the_host(cutter):
    mask = cutter.segmenter.segment([np.asarray(Image.open(PHOTOS[1]).convert("RGB"))])[0]
    usual = cv2.resize(mask, (1600, 1200), interpolation=cv2.INTER_CUBIC).astype(int)
    assert np.abs(full_alpha(torch.from_numpy(mask)[None], 1200, 1600)[0].numpy() - usual).max() <= 3


def test_what_is_warmed_up_is_asked_of_the_device_on_a_stream_of_its_own(cutter, monkeypatch):
    """On the second GPU of a machine nothing else makes it the one that a thread's kernels run on."""
    lane, free = on_the_lane(cutter, Libjpeg()), []
    for each in (lane.segmenter, lane._lane):
        monkeypatch.setattr(each, "warm_up", lambda: free.append(lane._streams._free.qsize()))
    lane.warm_up()
    assert free == [0, 0]


def test_a_device_that_can_make_no_photo_is_told_of_at_the_start(cutter, caplog, monkeypatch):
    monkeypatch.setattr("workers.device_lane._ANY_SIZE", (120, 160))
    on_the_lane(cutter, Libjpeg()).warm_up()
    assert not caplog.records
    on_the_lane(cutter, Libjpeg(error="nvjpeg: not supported")).warm_up()
    assert {each.args for each in caplog.records} == {("jpg",), ("png",)}


class Threshold(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(image.mean(1, keepdim=True))


def test_steps_that_are_compiled_make_the_same_and_are_compiled_once_for_all_sizes(tmp_path, monkeypatch):
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    keep_compiled_in(tmp_path)
    monkeypatch.setattr("workers.device_lane._ANY_SIZE", (300, 1100))
    torch._dynamo.reset()
    plain, compiled = (
        Cutter(
            Segmenter(Threshold(), replace(find_network("u2netp").preparation, side=80), torch.device("cpu"), running),
            "threshold",
            "",
            Limits(10**8, 10**8),
            jpegs=Libjpeg(),
        )
        for running in (Running(batch=8), Running(batch=8, compiled=True))
    )
    compiled.warm_up()
    graphs = counters["stats"]["unique_graphs"]
    sources = []
    for size in ((1010, 163), (1010, 163), (175, 325), (160, 160), (101, 167), (163, 49)):
        file = io.BytesIO()
        Image.open(PHOTOS[1]).resize(size).save(file, "JPEG")
        sources.append(file.getvalue())
    edges = [CutoutOptions(format=format, refine=True, despill=True) for format in ("jpg", "png")]
    wanted = (WHITE_JPEG, CutoutOptions(), *edges)
    orders = [Order(source, options, want_mask=True) for source in sources for options in wanted]
    ours, usual = (
        [lane.finish(each) for each in lane.segment([lane.open(order) for order in orders])]
        for lane in (compiled, plain)
    )
    for one, other in zip(ours, usual, strict=True):
        assert np.abs(pixels_of(one.mask_png) - pixels_of(other.mask_png)).max() <= 1
        assert np.abs(pixels_of(one.file) - pixels_of(other.file)).max() <= 8
        assert one.scores.model_dump() == pytest.approx(other.scores.model_dump(), abs=0.01)
    assert counters["stats"]["unique_graphs"] == graphs
