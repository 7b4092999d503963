from __future__ import annotations

import json
import math
import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.errors import OutOfMemory, WeightsInvalid
from store.settings import Settings
from tests.workers.photos import PHOTOS, original_onnx
from workers.cutter import open_cutter
from workers.decode import decode
from workers.networks.eight_bits import EightBitConvRelu, Inflow, can_run_here
from workers.networks.importing import import_weights
from workers.networks.own import load_own
from workers.networks.registry import find_network
from workers.networks.weights_file import weights_file
from workers.running import Running
from workers.segmenter import Segmenter

U2NETP = find_network("u2netp")


def test_a_pth_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsInvalid):
        import_weights(tmp_path / "trap.pth", U2NETP, tmp_path / "out.safetensors")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"no weights", b"root:x:0:0:root:/root:/bin/bash", b""])
@pytest.mark.parametrize("name", ["a.pth", "a.onnx", "a.safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsInvalid):
        import_weights(tmp_path / name, U2NETP, tmp_path / "out.safetensors")


@pytest.mark.parametrize("onnx", original_onnx(), ids=lambda path: path.name)
def test_the_original_onnx_file_gives_the_weights_that_ship(tmp_path, onnx):
    import_weights(onnx, U2NETP, tmp_path / "out.safetensors")
    made, shipped = load_file(tmp_path / "out.safetensors"), load_file(weights_file("u2netp", None))
    assert all(torch.equal(made[name], shipped[name]) for name in shipped)


def saved_on_a_gpu(state: dict[str, torch.Tensor], to: Path) -> None:
    """What `torch.save` writes where the tensors lie on a GPU: the same, but for where they are to go back to."""
    torch.save(state, to)
    with zipfile.ZipFile(to) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(to, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"))


WAYS_TO_SAVE = {
    "as it is": torch.save,
    "by its training": lambda state, to: torch.save({"epoch": 7, "state_dict": state}, to),
    "with an optimizer": lambda state, to: torch.save({"optimizer": {}, "model_state_dict": state}, to),
    "as a model": lambda state, to: torch.save({"model": state}, to),
    **{
        f"wrapped as {prefix}": partial(
            lambda prefix, state, to: torch.save({f"{prefix}{name}": each for name, each in state.items()}, to), prefix
        )
        for prefix in ("module.", "module._orig_mod.", "model.net.")
    },
    "with more than tensors": lambda state, to: torch.save({**state, "version": 3}, to),
    "channels last": lambda state, to: torch.save(
        {name: each.to(memory_format=torch.channels_last) if each.ndim == 4 else each for name, each in state.items()},
        to,
    ),
    "on a GPU": saved_on_a_gpu,
}


@pytest.mark.parametrize("way", WAYS_TO_SAVE)
def test_a_pth_gives_its_weights_however_it_was_saved(tmp_path, way):
    shipped = load_file(weights_file("u2netp", None))
    WAYS_TO_SAVE[way](shipped, tmp_path / "theirs.pth")
    made = tmp_path / "a folder" / "that is new" / "ours.safetensors"
    for _ in ("made", "written over"):
        import_weights(tmp_path / "theirs.pth", U2NETP, made)
    assert load_file(made).keys() == shipped.keys()
    assert all(torch.equal(each, shipped[name]) for name, each in load_file(made).items())


def test_a_safetensors_file_of_halves_becomes_one_of_32_bits(tmp_path):
    halves = {name: each.half() for name, each in load_file(weights_file("u2netp", None)).items()}
    save_file(halves, tmp_path / "halves.safetensors")
    import_weights(tmp_path / "halves.safetensors", U2NETP, tmp_path / "ours.safetensors")
    made = load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(made[name], each.float()) for name, each in halves.items())


def test_a_safetensors_file_of_a_compiled_network_gives_its_weights(tmp_path):
    shipped = load_file(weights_file("u2netp", None))
    save_file({f"_orig_mod.{name}": each for name, each in shipped.items()}, tmp_path / "theirs.safetensors")
    import_weights(tmp_path / "theirs.safetensors", U2NETP, tmp_path / "ours.safetensors")
    assert all(torch.equal(each, shipped[name]) for name, each in load_file(tmp_path / "ours.safetensors").items())


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_of_a_training_that_went_astray_are_refused(tmp_path, number):
    state = load_file(weights_file("u2netp", None))
    state["side1.bias"][:] = number
    torch.save(state, tmp_path / "astray.pth")
    with pytest.raises(WeightsInvalid, match="no finite number"):
        import_weights(tmp_path / "astray.pth", U2NETP, tmp_path / "out.safetensors")


def test_a_pth_of_a_whole_network_is_refused_with_what_to_save_instead(tmp_path):
    torch.save(U2NETP.build(), tmp_path / "whole.pth")
    with pytest.raises(WeightsInvalid, match="state_dict"):
        import_weights(tmp_path / "whole.pth", U2NETP, tmp_path / "out.safetensors")


def test_a_pth_that_holds_no_table_is_refused_as_that(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "one.pth")
    with pytest.raises(WeightsInvalid, match="no table of tensors by name"):
        import_weights(tmp_path / "one.pth", U2NETP, tmp_path / "out.safetensors")


class Brightness(nn.Module):
    """A network of a stranger: what is bright is the subject; answers from -1 to 1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(1, keepdim=True) * 2 - 1


CONTRACT = {"side": 64, "mean": [0, 0, 0], "std": [1, 1, 1], "low": -1, "high": 1}


def own(tmp_path, contract=CONTRACT, suffix=".pt", network: nn.Module | None = None) -> Settings:
    path, network = tmp_path / f"mine{suffix}", network or Brightness()
    if suffix == ".pt2":
        torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 64, 64),)), path)
    else:
        torch.jit.trace(network, torch.zeros(1, 3, 64, 64)).save(str(path))
    path.with_suffix(".contract.json").write_text(json.dumps(contract))
    return Settings(home=tmp_path, network="own", weights=path)


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_network_of_ones_own_segments_as_its_contract_says(tmp_path, suffix):
    cutter = open_cutter(own(tmp_path, suffix=suffix))
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[:, 16:32], photo[:, 32:] = 128, 255
    (mask,) = cutter.segmenter.segment([photo])
    assert (mask[:, 5].max(), mask[:, 60].min()) == (0, 255)
    assert np.abs(mask[:, 24].astype(int) - 128).max() <= 2
    assert cutter.network == "own"


def test_a_contract_that_says_no_more_means_answers_from_0_to_1_one_at_a_time_in_32_bits(tmp_path):
    settings = own(tmp_path, {"side": 64, "mean": [0, 0, 0], "std": [1, 1, 1]})
    _, _, _, contract = load_own(settings.weights)
    assert (contract.batch, contract.half) == (1, False)
    photo = np.full((64, 64, 3), 191, np.uint8)
    photo[:, 32:] = 153
    (mask,) = open_cutter(settings).segmenter.segment([photo])
    assert np.abs(mask[:, (5, 60)].astype(int) - (127, 51)).max() <= 2, "it answers 0.5 and 0.2"


@pytest.mark.parametrize(
    "network", [nn.Identity(), nn.Sequential(Brightness(), nn.AvgPool2d(2))], ids=["deep", "small"]
)
def test_a_network_that_answers_otherwise_than_for_each_pixel_stops_the_start(tmp_path, network):
    with pytest.raises(WeightsInvalid, match="answers with the shape"):
        open_cutter(own(tmp_path, network=network))


NO_CONTRACTS = [{"side": side} for side in (96, 7, 24, 68, 4104)] + [{"batch": batch} for batch in (0, 65)]


@pytest.mark.parametrize("wrong", [*NO_CONTRACTS, {"std": [0, 1, 1]}, {"low": 1}, {"depth": 3}], ids=str)
def test_a_contract_that_does_not_hold_stops_the_start(tmp_path, wrong):
    settings = own(tmp_path, CONTRACT | wrong, ".pt2" if wrong == {"side": 96} else ".pt")
    with pytest.raises(WeightsInvalid):
        open_cutter(settings)


class Small(nn.Module):
    """A device with room for two images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.seen = room, []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if len(image) > self.room:
            raise torch.OutOfMemoryError
        self.seen.append(len(image))
        return image.mean(1, keepdim=True)


def test_out_of_memory_halves_the_batch_and_loses_no_image():
    module = Small(room=2)
    photos = [np.full((64, 64, 3), value, np.uint8) for value in range(0, 250, 50)]
    segmenter = Segmenter(module, U2NETP.preparation, torch.device("cpu"), Running(batch=8))
    assert len(segmenter.segment(photos)) == 5
    assert sum(module.seen) == 5


def test_one_image_too_large_for_the_device_is_an_items_own_error():
    segmenter = Segmenter(Small(room=0), U2NETP.preparation, torch.device("cpu"))
    with pytest.raises(OutOfMemory):
        segmenter.segment([np.zeros((64, 64, 3), np.uint8)])


def noisy(rgb: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 10, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def cropped_in_a_mirror(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[rgb.shape[0] // 5 :, ::-1])


def pale(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(128 + (rgb - 128.0) * 0.5, np.uint8)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return open_cutter(Settings(home=tmp_path_factory.mktemp("exact"), exact=True))


@pytest.mark.parametrize("change", [np.asarray, noisy, pale, cropped_in_a_mirror])
def test_rounding_to_8_bits_moves_no_mask_by_more_than_2_of_255(cutter, exact, change):
    for photo in PHOTOS:
        rgb = change(decode(photo.read_bytes(), exact.limits).rgb)
        ours, wanted = (each.segmenter.segment([rgb])[0].astype(float) for each in (cutter, exact))
        assert np.abs(ours - wanted).mean() <= 2


@pytest.mark.skipif(not can_run_here(), reason="this CPU does not multiply bytes")
def test_rounding_weights_to_8_bits_adds_nothing_on_average():
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 16, 3, padding=1)
    image = torch.rand(1, 32, 64, 64) + torch.rand(1, 32, 1, 1) * 3
    conv.bias.data += 20  # so that no output is cut off at 0
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))

    def added(means: list[float]) -> float:
        rounded = EightBitConvRelu(conv, Inflow(float(image.max()), means))(image)
        return float((rounded - conv(image))[inside].mean((2, 3)).abs().mean())

    with torch.inference_mode():
        assert added(image.mean((0, 2, 3)).tolist()) < added([0.0] * 32) / 4
