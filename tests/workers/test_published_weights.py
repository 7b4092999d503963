"""Files of weights as people have them, of networks written as published, against onnxruntime on the same file."""

from __future__ import annotations

import os
import shlex
import warnings
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor
from typer.testing import CliRunner

from portal.cli.app import app
from store.settings import Settings
from tests.workers.published import Published, published
from workers.networks.registry import find_network
from workers.networks.weights import load_weights
from workers.networks.weights_file import weights_file

IMAGE = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3))
"""Weights do not depend on the input's size; the network's own would take the test minutes."""


@pytest.fixture(scope="module")
def isnet() -> Published:
    return published(isnet=True)


@pytest.fixture(scope="module")
def folded(isnet, tmp_path_factory) -> Path:
    """As in rembg's release: batch norms folded in, and numbers for the names of what they were folded into."""
    file = tmp_path_factory.mktemp("onnx") / "isnet-general-use.onnx"
    export(isnet, file)
    names = [each.name for each in onnx.load(file).graph.initializer]
    assert "conv_in.weight" in names
    assert not any("stage1.rebnconvin" in name for name in names)
    return file


def export(network: Published, file: Path, **options: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (IMAGE,), file, dynamo=False, opset_version=17, **options)


def imported(file: Path, network: str, to: Path) -> Tensor:
    """What the network makes of the image with the weights in `file`, imported as a user does it."""
    command = ["weights", "import", str(file), "--network", network, "--to", str(to)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"BGBATCH_NETWORK={network}" in done.output
    with torch.inference_mode():
        return load_weights(find_network(network), to)[0](IMAGE)


def by_onnxruntime(file: Path) -> Tensor:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: IMAGE.numpy()})[0])


def differ(one: Tensor, other: Tensor) -> float:
    assert other.std() > 0.05, "a flat mask would agree with anything"
    return float((one - other).abs().max())


def test_an_onnx_of_isnet_with_folded_batch_norms_gives_onnxruntimes_mask(folded, tmp_path):
    assert differ(imported(folded, "isnet", tmp_path / "isnet.safetensors"), by_onnxruntime(folded)) < 1e-4


def test_the_same_in_16_bits(folded, tmp_path):
    half = tmp_path / "half.onnx"
    onnx.save(convert_float_to_float16(onnx.load(folded), keep_io_types=True), half)
    mask = imported(half, "isnet", tmp_path / "isnet.safetensors")
    assert differ(mask, by_onnxruntime(half)) < 1e-4
    assert 1e-4 < differ(mask, by_onnxruntime(folded)) < 0.02  # another file: its weights were rounded


def test_an_onnx_of_isnet_with_batch_norms_apart_gives_onnxruntimes_mask(isnet, tmp_path):
    apart = tmp_path / "apart.onnx"
    export(isnet, apart, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    assert "stage1.rebnconvin.bn_s1.running_var" in [each.name for each in onnx.load(apart).graph.initializer]
    assert differ(imported(apart, "isnet", tmp_path / "isnet.safetensors"), by_onnxruntime(apart)) < 1e-4


def rounded(node: onnx.NodeProto) -> None:
    """As quantizing does it: the weight is made by a node before the convolution."""
    node.input[1] += "_of_8_bits"


def unbiased(node: onnx.NodeProto) -> None:
    """The convolution of another network, which adds nothing."""
    del node.input[2]


@pytest.mark.parametrize("change", [rounded, unbiased])
def test_an_onnx_whose_convolutions_are_not_those_of_the_network_is_refused_with_a_sentence(folded, tmp_path, change):
    other = onnx.load(folded)
    for node in other.graph.node:
        if node.op_type == "Conv":
            change(node)
    onnx.save(other, tmp_path / "other.onnx")
    done = CliRunner().invoke(
        app, ["weights", "import", str(tmp_path / "other.onnx"), "--network", "isnet", "--to", str(tmp_path / "no")]
    )
    assert done.exit_code == 2, done.output
    assert "not those of IS-Net" in done.output
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("network", ["isnet", "u2net"])
@pytest.mark.parametrize("half", [False, True], ids=["32 bits", "16 bits"])
def test_a_pth_gives_the_mask_of_the_network_as_published(network, half, tmp_path):
    theirs = published(network == "isnet")
    if half:
        theirs.half()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    with torch.inference_mode():
        wanted = theirs.float()(IMAGE)[0]
    assert differ(imported(tmp_path / "theirs.pth", network, tmp_path / "ours.safetensors"), wanted) < 1e-4


@pytest.mark.parametrize("to", [[], ["--to", "ours.safetensors"]], ids=["in bgbatch's home", "in this folder"])
def test_what_an_import_says_to_use_can_be_pasted_into_a_shell_in_any_folder(tmp_path, monkeypatch, to):
    for folder in ("my home", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("BGBATCH_HOME", str(tmp_path / "my home"))
    monkeypatch.chdir(tmp_path / "here")
    shipped = weights_file("u2netp", None)
    done = CliRunner().invoke(app, ["weights", "import", str(shipped), "--network", "u2netp", *to])
    assert done.exit_code == 0, done.output
    title, use = (line.partition("  ")[2].strip() for line in done.stdout.splitlines())
    assert title == find_network("u2netp").title
    for word in shlex.split(use):
        monkeypatch.setenv(*word.split("=", 1))
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.weights == tmp_path / ("here/ours.safetensors" if to else "my home/weights/u2netp.safetensors")
    load_weights(find_network(settings.network), weights_file(settings.network, settings.weights))


def test_only_a_file_is_written_and_only_one_that_is_there_is_read(tmp_path):
    shipped = str(weights_file("u2netp", None))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for to in ("pipe", "folder"):
        words = ["weights", "import", shipped, "--network", "u2netp", "--to", str(tmp_path / to)]
        done = CliRunner().invoke(app, words)
        assert (done.exit_code, "is no file" in done.stderr) == (2, True), done.output
    assert (tmp_path / "pipe").is_fifo(), "so would /dev/null be replaced"
    done = CliRunner().invoke(app, ["weights", "import", str(tmp_path / "none.pth"), "--network", "u2netp"])
    assert (done.exit_code, "No such file" in done.stderr) == (2, True), done.output
    beside = ["--to", str(tmp_path / "pipe/ours.safetensors")]
    done = CliRunner().invoke(app, ["weights", "import", shipped, "--network", "u2netp", *beside])
    assert (done.exit_code, done.stderr.startswith("file_fault")) == (2, True), done.output
