"""Weights files: hashed, checked against the network they are for, loaded.

A file whose tensors have other names or shapes than the network is refused whole: a network that is loaded in part
still gives masks, and they are wrong.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from schemas.errors import WeightsInvalid
from workers.networks.folding import State, fold_batch_norms
from workers.networks.registry import Network


def load_weights(network: Network, path: Path) -> tuple[nn.Module, str]:
    """The network with the file's weights, in 32 bits, set to evaluate; and its SHA-256. Raises `WeightsInvalid`."""
    data = path.read_bytes()
    try:
        state = load(data)
    except SafetensorError:
        raise WeightsInvalid(
            "The weights file is no safetensors file. Import other kinds with `bgbatch weights import`."
        ) from None
    module = empty(network)
    fill(module, state, network.title)
    return module, hashlib.sha256(data).hexdigest()


def empty(network: Network) -> nn.Module:
    """The network without memory for its weights: `fill` brings them along."""
    with torch.device("meta"):
        return network.build()


def fill(module: nn.Module, state: State, title: str) -> None:
    """Load `state`, its batch norms folded, into `module`, which is set to evaluate. Raises `WeightsInvalid`."""
    # In 32 bits before it is folded: a folded weight rounded to 16 bits would be rounded twice.
    folded = fold_batch_norms({name: tensor.float() for name, tensor in state.items()})
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    absent = [name for name in wanted if name not in folded]
    other = [name for name in wanted if name in folded and folded[name].shape != wanted[name]]
    if absent or other:
        raise WeightsInvalid(
            f"The weights are not those of {title}: {len(absent)} of its {len(wanted)} tensors are missing and "
            f"{len(other)} have another shape ({', '.join((absent + other)[:3])})."
        )
    if not all(folded[name].isfinite().all() for name in wanted):  # its masks would be empty, and pass for done
        raise WeightsInvalid("Among the weights is one that is no finite number: their training went astray.")
    with torch.no_grad():
        module.load_state_dict({name: folded[name] for name in wanted}, assign=True)
    module.eval().requires_grad_(False)
