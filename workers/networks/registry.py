"""The networks by name: how each is built, and how its input is to be prepared.

`divide_by_peak` is how U²-Net was trained and is run everywhere: a photo is divided by its own brightest value, not
by 255. `stretch`: the output is spread to 0…1 by its own least and greatest value, as the published code does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from schemas.errors import WeightsInvalid
from workers.networks.u2net import ISNET, U2NET, U2NETP, U2Net

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preparation:
    """What a network wants to be fed. `side`: height and width in pixels; `mean`, `std`: by RGB channel, on 0…1."""

    side: int
    mean: Triple
    std: Triple
    divide_by_peak: bool
    stretch: bool


@dataclass(frozen=True)
class Network:
    """A network that can be built here."""

    name: str
    title: str
    build: Callable[[], nn.Module]
    preparation: Preparation


_U2NET_WANTS = Preparation(320, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), divide_by_peak=True, stretch=True)
_ISNET_WANTS = Preparation(1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), divide_by_peak=True, stretch=True)

_NETWORKS = (
    Network("u2netp", "U²-Netp", lambda: U2Net(U2NETP), _U2NET_WANTS),
    Network("u2net", "U²-Net", lambda: U2Net(U2NET), _U2NET_WANTS),
    Network("isnet", "IS-Net", lambda: U2Net(ISNET), _ISNET_WANTS),
)

NETWORKS = {network.name: network for network in _NETWORKS}


def find_network(name: str) -> Network:
    """The network of that name. Raises `WeightsInvalid`, which lists those that there are."""
    try:
        return NETWORKS[name]
    except KeyError:
        raise WeightsInvalid(f"There is no network of that name. Choose one of: {', '.join(NETWORKS)}.") from None
