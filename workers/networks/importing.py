"""Weights in the forms that people have (.pth, .onnx, .safetensors), turned into the safetensors that bgbatch loads.

A .pth is read without running any code in it. An ONNX file whose batch norms are folded has numbers for names: its
convolutions stand in the order in which the network runs, and so do those of ours when it runs once, so they are
matched one to one. `workers.networks.weights.fill` then checks every name and shape.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from schemas.errors import WeightsInvalid
from store.objects.folder import partial_name, write_whole
from workers.networks.folding import State, fold_batch_norms
from workers.networks.registry import Network
from workers.networks.weights import empty, fill


def import_weights(source: Path, network: Network, target: Path) -> None:
    """Write the weights in `source` as `target`, folded and in 32 bits. Raises `WeightsInvalid` and writes nothing."""
    module = empty(network)
    fill(module, read_state(source, network), network.title)
    target.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    write_whole(str(target.with_name(partial_name(target.name))), str(target), save(state))


def read_state(source: Path, network: Network) -> State:
    """The tensors in a file of any of the three kinds, by the network's names. Raises `WeightsInvalid`."""
    try:
        if source.suffix == ".onnx":
            return _from_onnx(source, network)
        held = load_file(source) if source.suffix == ".safetensors" else _from_pickle(source)
        return _without_prefix(held, network)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsInvalid(
            f"The weights file cannot be read ({type(error).__name__}). It must be .onnx, .safetensors, or a .pth of "
            "tensors by name, as torch.save(network.state_dict(), …) writes it."
        ) from None


def _from_pickle(source: Path) -> State:
    try:
        raw: object = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - of a file that is no pickle it raises whatever its bytes lead to
        raise ValueError(type(error).__name__) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(raw, dict) and key in raw:
            raw = raw[key]
    if not isinstance(raw, dict):
        raise WeightsInvalid("The file holds no table of tensors by name.")
    return {str(name): each for name, each in raw.items() if isinstance(each, torch.Tensor)}


def _without_prefix(state: State, network: Network) -> State:
    """What wraps a network puts its name before each: `module.`, `_orig_mod.` (torch.compile), `model.` (Lightning)."""
    first = next(iter(empty(network).state_dict()))
    prefix = next((name.removesuffix(first) for name in state if name.endswith(first)), "")
    return {name.removeprefix(prefix): each for name, each in state.items()}


def _from_onnx(source: Path, network: Network) -> State:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise WeightsInvalid("To import ONNX files, install the package onnx: pip install onnx.") from None
    try:
        graph = onnx.load(str(source)).graph
    except Exception as error:  # noqa: BLE001 - protobuf has errors of its own
        raise ValueError(type(error).__name__) from None
    tensors = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    module = empty(network)
    wanted = module.state_dict()
    if wanted.keys() <= fold_batch_norms(tensors).keys():
        return tensors
    order = _order_of_convolutions(module, network.preparation.side)
    named = {name.removesuffix(".weight") for name in wanted if name in tensors}
    rest = [name for name in order if name not in named]
    state = {name: tensors[name] for name in wanted if name in tensors}
    for node in (node for node in graph.node if node.op_type == "Conv"):
        weight, bias = tensors.get(node.input[1]), tensors.get(node.input[2]) if len(node.input) == 3 else None
        if not node.input[1].endswith(".weight") and rest and weight is not None and bias is not None:
            name = rest.pop(0)
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


def _order_of_convolutions(module: nn.Module, side: int) -> list[str]:
    ran: list[str] = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        module(torch.zeros(1, 3, side, side, device="meta"))
    return ran
