"""Make workers/weights/u2netp.safetensors from the U²-Netp ONNX file that rembg uses. Run once; the result
is committed.

    python scripts/convert_u2netp.py u2netp.onnx workers/weights/u2netp.safetensors

The ONNX file has the batch norms folded in, so its inner tensors have numbers for names. Its convolutions stand in the
order in which the network runs, and so do those of our network when it is traced: they are matched one to one, and
each shape is checked.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import nn

from workers.networks.registry import find_network
from workers.networks.weights import fill


def main() -> None:
    """Convert one file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("onnx", type=Path)
    arguments.add_argument("safetensors", type=Path)
    arguments.add_argument("--network", default="u2netp")
    chosen = arguments.parse_args()
    network = find_network(chosen.network)
    state = by_order(network.build(), onnx.load(str(chosen.onnx)), network.preparation.side)
    fill(network.build(), state, network.title)
    save_file(state, str(chosen.safetensors), metadata={"network": network.name})
    print(hashlib.sha256(chosen.safetensors.read_bytes()).hexdigest(), chosen.safetensors)


def by_order(module: nn.Module, model: onnx.ModelProto, side: int) -> dict[str, torch.Tensor]:
    """The state of `module` with the ONNX file's tensors, convolution by convolution as they run."""
    ran: list[str] = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        module(torch.zeros(1, 3, side, side))
    tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    if len(nodes) != len(ran):
        raise SystemExit(f"the ONNX file has {len(nodes)} convolutions, the network {len(ran)}")
    named = {node.input[1].removesuffix(".weight") for node in nodes if node.input[1].endswith(".weight")}
    state: dict[str, torch.Tensor] = {}
    rest = [name for name in ran if name not in named]
    for node in nodes:
        name = node.input[1].removesuffix(".weight")
        name = name if name in named else rest.pop(0)
        state[f"{name}.weight"] = torch.from_numpy(tensors[node.input[1]].copy())
        state[f"{name}.bias"] = torch.from_numpy(tensors[node.input[2]].copy())
    return state


if __name__ == "__main__":
    main()
