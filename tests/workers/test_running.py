"""What a GPU is given beyond a CPU, tried on a CPU through the same code: 16 bits, batches, a compiled network."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from schemas.errors import DeviceBroken, NotCompiled
from tests.workers.photos import PHOTOS
from workers.compiling import keep_compiled_in
from workers.decode import Limits, decode
from workers.lanes import ONE_BY_ONE, Pace, overlapped
from workers.networks.registry import Preparation, find_network
from workers.networks.weights import load_weights
from workers.networks.weights_file import weights_file
from workers.running import Running, pace_on, running_on
from workers.segmenter import Segmenter, is_broken

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
U2NETP = find_network("u2netp")
WANTS = Preparation(64, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), divide_by_peak=True, stretch=False)


def test_a_gpu_runs_16_bits_compiled_and_as_many_photos_as_their_size_allows():
    assert running_on(CUDA, 320, half=True, most=16, compiled=True) == Running(torch.float16, 16, compiled=True)
    assert running_on(CUDA, 1024, half=True, most=32, compiled=True).batch == 16
    assert running_on(CUDA, 4096, half=False, most=16, compiled=False) == Running(torch.float32, 1, compiled=False)


def test_a_cpu_runs_32_bits_one_at_a_time_whatever_is_asked():
    assert running_on(CPU, 320, half=True, most=16, compiled=True) == Running(torch.float32, 1, compiled=False)


def test_a_gpus_threads_are_its_actors_share_of_the_cpus():
    assert pace_on(CUDA, Running(batch=16), cpus=16, actors=4) == Pace(2, 4, 16, 2, weight=64_000_000, carriers=32)
    assert pace_on(CPU, Running(), cpus=16, actors=4) == Pace(readers=1, writers=1, batch=1, carriers=4)


def test_a_network_in_16_bits_and_in_batches_gives_the_same_masks():
    photos = [decode(photo.read_bytes(), Limits(10**8, 10**8)).rgb for photo in PHOTOS[:2]]
    wants = replace(U2NETP.preparation, side=96)  # a CPU is slow in 16 bits
    exact, half = (
        Segmenter(load_weights(U2NETP, weights_file("u2netp", None))[0], wants, CPU, running)
        for running in (Running(), Running(torch.float16, batch=2))
    )
    for ours, wanted in zip(half.segment(photos), exact.segment(photos), strict=True):
        assert np.abs(ours.astype(int) - wanted).mean() <= 2


class Tiny(nn.Module):
    """A convolution, and the batch sizes that it was run with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.conv(image))


def photos_of(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8) for n in range(count)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    keep_compiled_in(tmp_path)
    torch._dynamo.reset()
    return tmp_path


def test_a_compiled_network_gives_the_same_masks_is_compiled_once_and_kept_for_the_next_start(folder):
    plain, compiled = Segmenter(Tiny(), WANTS, CPU), Segmenter(Tiny(), WANTS, CPU, Running(batch=8, compiled=True))
    compiled.warm_up()
    graphs = counters["stats"]["unique_graphs"]
    for count in (1, 3, 11):
        for ours, wanted in zip(compiled.segment(photos_of(count)), plain.segment(photos_of(count)), strict=True):
            assert np.abs(ours.astype(int) - wanted).max() <= 1
    assert counters["stats"]["unique_graphs"] == graphs  # whatever came after the warm-up was run as 8
    assert any(each.is_file() for each in folder.rglob("*"))
    torch._dynamo.reset()  # as a new process begins
    found, compiled_anew = counters["aot_autograd"]["autograd_cache_hit"], counters["inductor"]["fxgraph_cache_miss"]
    Segmenter(Tiny(), WANTS, CPU, Running(batch=8, compiled=True)).warm_up()
    assert counters["aot_autograd"]["autograd_cache_hit"] == found + 1
    assert counters["inductor"]["fxgraph_cache_miss"] == compiled_anew


def test_a_compiled_network_that_is_short_of_memory_runs_as_few_photos_as_it_is_given(monkeypatch):
    segmenter = Segmenter(Tiny(), WANTS, CPU, Running(batch=8, compiled=True))
    runs = []

    def compiled(images: torch.Tensor) -> torch.Tensor:
        runs.append(len(images))
        raise torch.OutOfMemoryError

    def as_it_is(images: torch.Tensor) -> torch.Tensor:
        runs.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return images[..., 0]

    monkeypatch.setattr(segmenter, "_run", compiled)
    monkeypatch.setattr(segmenter, "_whole", as_it_is)
    photos = photos_of(5)
    masks = segmenter.segment(photos)
    assert runs == [8, 2, 2, 1], "not filled up any more"
    assert all(np.array_equal(mask, photo[..., 0]) for mask, photo in zip(masks, photos, strict=True))


def test_without_a_compiler_the_start_fails_and_says_what_to_do(monkeypatch):
    segmenter = Segmenter(Tiny(), WANTS, CPU, Running(compiled=True))
    monkeypatch.setattr(
        segmenter,
        "_run",
        torch.compile(
            Tiny(),
            backend=_no_compiler,
        ),
    )
    with pytest.raises(NotCompiled, match="BGBATCH_COMPILED=false"):
        segmenter.warm_up()


def _no_compiler(*_):
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")


class WithoutHeaders(nn.Module):
    """As what is written in Triton: its compiler's errors come as they are."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    @torch.compiler.disable
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, ["gcc"]), PermissionError(13, "denied")])
def test_without_pythons_headers_or_a_folder_to_write_to_it_says_so_too(folder, error):
    segmenter = Segmenter(WithoutHeaders(error), WANTS, CPU, Running(compiled=True))
    with pytest.raises(NotCompiled, match=r"python3-dev.*BGBATCH_COMPILED_IN"):
        segmenter.warm_up()


def test_a_broken_device_is_no_want_of_a_compiler(folder):
    with pytest.raises(DeviceBroken):
        Segmenter(BrokenContext(), WANTS, CPU, Running(compiled=True)).warm_up()


class BrokenContext(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def test_an_error_that_breaks_the_context_is_told_from_an_items_own():
    with pytest.raises(DeviceBroken):
        Segmenter(BrokenContext(), WANTS, CPU).segment(photos_of(1))


def same(item: object) -> object:
    return item


def test_steps_overlap_and_results_keep_their_order():
    met = threading.Barrier(5, timeout=60)

    def step(number: int) -> int:
        met.wait()  # fetched, read, run, written and kept at the same time, or this would wait in vain
        return number

    def at(place: int):
        return lambda number: step(number) if number == place else number

    steps = [at(6), at(5), lambda numbers: [at(4)(n) for n in numbers], at(3), at(2)]
    assert overlapped(range(9), *steps, Pace(readers=1, writers=1, batch=1, carriers=1)) == list(range(9))


@pytest.mark.parametrize("end", ["fetch", "keep"])
def test_as_many_photos_wait_for_the_store_at_once_as_it_has_carriers(end):
    met = threading.Barrier(4, timeout=60)

    def at(place: str):
        return lambda number: (met.wait(), number)[1] if place == end else number

    pace = Pace(readers=1, writers=1, batch=2, carriers=4)
    assert overlapped(range(8), at("fetch"), same, same, same, at("keep"), pace) == list(range(8))


def test_the_device_goes_on_while_a_batch_is_written_that_takes_long():
    third = threading.Event()

    def together(numbers: list[int]) -> list[int]:
        if 8 in numbers:
            third.set()
        return numbers

    def write(number: int) -> int:
        assert number or third.wait(timeout=60), "the first photo is written when the third batch has begun"
        return number

    assert overlapped(range(16), same, same, together, write, same, Pace(1, 1, 4, drivers=2)) == list(range(16))


@pytest.mark.parametrize("said", ["CUDA error: out of memory", "CUDA out of memory. Tried to allocate 2 GiB"])
def test_memory_that_is_short_on_the_device_or_the_host_breaks_no_context(said):
    assert not is_broken(RuntimeError(said))
    assert not is_broken(torch.AcceleratorError(said))


def test_a_torch_that_has_no_error_of_its_own_for_it_is_understood_too(monkeypatch):
    monkeypatch.delattr(torch, "AcceleratorError")
    assert is_broken(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_broken(RuntimeError("nvjpegDecode failed"))


def test_several_threads_drive_the_device_at_the_same_time_and_results_keep_their_order():
    met = threading.Barrier(2, timeout=60)

    def together(numbers: list[int]) -> list[int]:
        met.wait()  # alone, one thread would wait in vain
        return numbers

    pace = Pace(readers=1, writers=1, batch=2, drivers=2)
    assert overlapped(range(8), same, same, together, same, same, pace) == list(range(8))


@pytest.mark.parametrize("pace", [ONE_BY_ONE, Pace(1, 1, 1), Pace(3, 2, 4), Pace(3, 2, 4, drivers=2, carriers=5)])
def test_no_more_photos_are_open_than_the_pace_allows(pace):
    lock, is_open, most, groups = threading.Lock(), set(), [0], []

    def read(number: int) -> int:
        with lock:
            is_open.add(number)
            most[0] = max(most[0], len(is_open))
        return number

    def write(number: int) -> int:
        with lock:
            is_open.remove(number)
        return number

    def together(numbers: list[int]) -> list[int]:
        groups.append(len(numbers))
        return numbers

    assert overlapped(range(50), same, read, together, write, same, pace) == list(range(50))
    assert most[0] <= (pace.drivers + 3) * pace.batch + 4 * pace.readers + 2
    assert max(groups) <= pace.batch


def test_a_batch_of_large_photos_is_whole_with_few_of_them():
    groups = []
    pace = Pace(0, 0, batch=4, weight=10)
    weights = [3, 3, 3, 3, 10, 50, 6, 5, 1]
    steps = [same, same, lambda numbers: groups.append(numbers) or numbers, same, same]
    assert overlapped(weights, *steps, pace, int) == weights
    assert groups == [[3, 3, 3, 3], [10], [50], [6, 5], [1]]


@pytest.mark.parametrize("drivers", [0, 1, 2])
def test_a_fault_of_the_device_ends_the_call(drivers):
    def together(numbers: list[int]) -> list[int]:
        raise DeviceBroken("gone")

    with pytest.raises(DeviceBroken):
        overlapped(range(50), same, same, together, same, same, Pace(1, 1, 2, drivers))


@pytest.mark.parametrize("carriers", [0, 2])
def test_a_fault_of_the_store_ends_the_call_and_starts_nothing_more(carriers):
    begun = []

    def fails(number: int) -> int:
        raise OSError(number)

    with pytest.raises(OSError, match="0"):
        overlapped(range(50), lambda n: begun.append(n) or n, same, same, same, fails, Pace(1, 1, 2, carriers=carriers))
    assert len(begun) < 12 + 3 * carriers
