from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from schemas.errors import DeviceAbsent, WeightsInvalid
from store.settings import Settings
from tests.workers.photos import PHOTOS, REFERENCES, network_input, onnx_output, original_onnx, stretched
from workers.cutter import open_cutter
from workers.networks.folding import fold_batch_norms
from workers.networks.registry import NETWORKS, find_network
from workers.networks.u2net import ConvRelu
from workers.networks.weights import fill, load_weights
from workers.networks.weights_file import weights_file
from workers.pool import open_pool
from workers.segmenter import find_device

U2NETP = find_network("u2netp")


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return load_weights(U2NETP, weights_file("u2netp", None))[0]


def ours(module: nn.Module, photo: Path) -> np.ndarray:
    with torch.inference_mode():
        return stretched(module(torch.from_numpy(network_input(photo)))[0, 0].numpy())


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_our_torch_network_gives_the_masks_of_onnxruntime_on_the_original_file(module, photo):
    expected = np.load(REFERENCES)[photo.stem] / 65535
    assert np.abs(ours(module, photo) - expected).max() < 1e-4


@pytest.mark.parametrize("onnx", original_onnx(), ids=lambda path: path.name)
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_where_the_original_file_is_at_hand_onnxruntime_says_so_live(module, photo, onnx):
    assert np.abs(ours(module, photo) - onnx_output(onnx, network_input(photo))).max() < 1e-4


def test_all_five_photos_are_compared():
    assert len(PHOTOS) == 5
    assert sorted(np.load(REFERENCES)) == [photo.stem for photo in PHOTOS]


@pytest.mark.parametrize("bias", [True, False], ids=["as published", "trained without a bias"])
def test_a_batch_norm_folded_into_its_convolution_is_the_same_function(bias):
    torch.manual_seed(1)
    published = nn.Sequential()
    published.add_module("conv_s1", nn.Conv2d(3, 8, 3, padding=1, bias=bias))
    published.add_module("bn_s1", nn.BatchNorm2d(8))
    published(torch.randn(64, 3, 9, 9) * 3 + 1)  # in training, so that the running statistics are not 0 and 1
    nn.init.normal_(published.bn_s1.weight)
    nn.init.normal_(published.bn_s1.bias)
    published.bn_s1.running_var[0] = 1e-5  # hardly ever awake in training: here the epsilon counts
    published.double().eval()
    block = ConvRelu(3, 8).double().eval()
    state = {f"block.{name}": tensor for name, tensor in published.state_dict().items()}
    block.load_state_dict({name.removeprefix("block."): t for name, t in fold_batch_norms(state).items()})
    image = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(block(image), published(image).relu(), atol=1e-9)


def published_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The module's state as its authors publish it: with batch norms, and with parts that are not needed to run."""
    generator = torch.Generator().manual_seed(2)
    state = {}
    for name, tensor in module.state_dict().items():
        state[name] = tensor
        if name.endswith(".conv_s1.weight"):
            norm, channels = name.replace("conv_s1.weight", "bn_s1"), tensor.shape[0]
            state[f"{norm}.weight"] = torch.rand(channels, generator=generator) + 0.5
            state[f"{norm}.bias"] = torch.rand(channels, generator=generator)
            state[f"{norm}.running_mean"] = torch.rand(channels, generator=generator)
            state[f"{norm}.running_var"] = torch.rand(channels, generator=generator) + 0.5
            state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    return state


def test_a_published_file_with_batch_norms_loads_and_gives_another_mask_than_one_without(module):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    loaded = U2NETP.build()
    fill(loaded, published_state(module), "U²-Netp")
    with torch.inference_mode():
        assert not torch.allclose(loaded(image), module(image), atol=1e-3)


@pytest.mark.parametrize(("name", "parameters"), [("u2netp", 1_131_181), ("u2net", 44_009_869), ("isnet", 44_000_000)])
def test_each_network_has_the_size_that_was_published(name, parameters):
    count = sum(each.numel() for each in NETWORKS[name].build().parameters())
    assert count == pytest.approx(parameters, rel=0.02)


@pytest.mark.parametrize("name", ["u2net", "isnet"])
@torch.inference_mode()
def test_the_large_networks_run_and_answer_for_each_pixel(name):
    output = NETWORKS[name].build().eval()(torch.zeros(2, 3, 96, 96))
    assert output.shape == (2, 1, 96, 96)


def test_weights_of_another_network_are_refused_whole():
    with pytest.raises(WeightsInvalid, match="not those of U²-Net:"):
        load_weights(find_network("u2net"), weights_file("u2netp", None))


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(json.dumps({"no": "tensors"}).encode())
    with pytest.raises(WeightsInvalid, match="no safetensors file"):
        load_weights(U2NETP, tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("network", "chosen", "sentence"),
    [
        ("u2netp", "absent.safetensors", "cannot be read: No such file or directory"),
        ("own", "absent.pt", "cannot be read: No such file or directory"),
        ("isnet", ".", "cannot be read: Is a directory"),
        ("isnet", None, "ships no weights for isnet"),
        ("own", None, "needs the network's file in BGBATCH_WEIGHTS"),
    ],
)
def test_weights_that_are_not_there_are_told_before_ray_starts(tmp_path, monkeypatch, network, chosen, sentence):
    monkeypatch.setattr("workers.pool.connect", lambda settings: pytest.fail("Ray was started"))
    settings = Settings(home=tmp_path, network=network, weights=chosen and tmp_path / chosen)
    with pytest.raises(WeightsInvalid, match=sentence):
        open_pool(settings)


def test_every_network_that_can_be_built_can_be_asked_for_and_no_other(tmp_path):
    assert get_args(Settings.model_fields["network"].annotation) == (*NETWORKS, "own")
    with pytest.raises(ValidationError):
        Settings(home=tmp_path, network="u3net")


def test_half_precision_weights_load(tmp_path, module):
    state = {name: t.half() for name, t in load_file(weights_file("u2netp", None)).items()}
    save_file(state, tmp_path / "half.safetensors")
    half, _ = load_weights(U2NETP, tmp_path / "half.safetensors")
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(half(image), module(image), atol=0.02)


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(WeightsInvalid, match="u2netp"):
        find_network("u3net")


@pytest.mark.parametrize("device", ["cuda:97", "quantum", "mps"])
def test_a_device_that_is_not_there_stops_the_start(device):
    with pytest.raises(DeviceAbsent):
        find_device(device)


def test_a_cutter_for_an_absent_device_does_not_open(tmp_path):
    with pytest.raises(DeviceAbsent):
        open_cutter(Settings(home=tmp_path, device="cuda:97"))


def test_a_worker_starts_however_small_the_photos_are_that_it_may_take(tmp_path):
    limits = open_cutter(Settings(home=tmp_path, actors=1, max_megapixels=0.001, max_megabytes=0.001)).limits
    assert (limits.pixels, limits.bytes) == (1000, 1000)
