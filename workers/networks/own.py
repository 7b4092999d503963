"""The user's own network: a TorchScript file (.pt, .ts) or an exported program (.pt2), and a contract beside it.

The contract is a small JSON file of the same name, `mine.pt` with `mine.contract.json`:

    {"side": 512, "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "low": 0, "high": 1}

The network gets N × 3 × side × side, RGB from 0 to 1 minus mean over std, and gives N × 1 × side × side, where
`low` means background and `high` subject. What it gives is checked once, at the start. Two more say what a GPU may do:
`"batch": 16`, how many images it takes at once (1 if unsaid), and `"half": true`, that it may be run in 16 bits.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import cast

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from schemas.errors import WeightsInvalid
from schemas.record import Record
from workers.networks.registry import Preparation


class Contract(Record):
    """What an own network wants and gives."""

    side: int = Field(ge=32, le=4096, multiple_of=8)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    low: float = 0.0
    high: float = 1.0
    batch: int = Field(1, ge=1, le=64)
    half: bool = False


class Ranged(nn.Module):
    """The network with its output brought to 0…1."""

    def __init__(self, inner: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.inner, self.low, self.span = inner, contract.low, contract.high - contract.low

    def forward(self, image: Tensor) -> Tensor:
        """Run, and scale."""
        return cast(Tensor, ((self.inner(image) - self.low) / self.span).clamp(0, 1))


def load_own(path: Path) -> tuple[nn.Module, Preparation, str, Contract]:
    """The network, what it wants to be fed, its file's SHA-256, and its contract. Raises `WeightsInvalid`."""
    contract = _contract(path.with_suffix(".contract.json"))
    try:
        data = path.read_bytes()
        inner = (
            torch.export.load(path).module()
            if path.suffix == ".pt2"
            else torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        )
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a file that is not its own
        raise WeightsInvalid(
            f"The network cannot be loaded ({type(error).__name__}). It must be TorchScript (.pt) or exported (.pt2)."
        ) from None
    module = Ranged(inner, contract)
    for batch in sorted({1, contract.batch}):
        shape, wanted = _shape_of_answer(module, batch, contract.side), (batch, 1, contract.side, contract.side)
        if shape != wanted:
            raise WeightsInvalid(f"The network answers with the shape {shape}; its contract wants {wanted}.")
    wants = Preparation(contract.side, contract.mean, contract.std, divide_by_peak=False, stretch=False)
    return module, wants, hashlib.sha256(data).hexdigest(), contract


def _contract(path: Path) -> Contract:
    try:
        contract = Contract.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError):
        raise WeightsInvalid(
            f"The contract {path.name} is missing or wrong. It holds side, mean, std, low and high: see docs/pixels.md."
        ) from None
    if contract.low == contract.high or not all(contract.std):
        raise WeightsInvalid("The contract's low and high must differ, and no std may be 0.")
    return contract


def _shape_of_answer(module: nn.Module, batch: int, side: int) -> tuple[int, ...]:
    try:
        with torch.inference_mode():
            return tuple(module(torch.zeros(batch, 3, side, side)).shape)
    except Exception as error:  # noqa: BLE001 - whatever the user's own code raises
        raise WeightsInvalid(f"The network fails on the input of its contract ({type(error).__name__}).") from None
