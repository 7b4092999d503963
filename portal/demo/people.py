"""Who is in the demo and what they send."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from schemas.industries import Industry

PHOTOS = files("portal") / "demo_photos"

_A_NOTE = b"This is a shopping list, not a photo.\n"


@dataclass(frozen=True)
class Customer:
    """An account of the demo. `sends`: relative path of each photo -> the shipped photo, or None for a broken one."""

    name: str
    email: str
    industry: Industry
    sends: dict[str, str | None]


DEALER = Customer(
    "Harbor Motors",
    "owner@harbor-motors.example",
    Industry.AUTOMOTIVE,
    {
        "VIN1HGCM82633A004352/1.jpg": "motorcycle.jpg",
        "VIN1HGCM82633A004352/2.jpg": "rocket.jpg",
        "VIN2T1BURHE5JC987654/1.jpg": "motorcycle.jpg",
    },
)
"""Turns AI Training Data on for automotive, and takes it back later."""

MARKETPLACE = Customer(
    "Corner Bazaar",
    "owner@corner-bazaar.example",
    Industry.MARKETPLACE,
    {
        "kitchen/cup.jpg": "coffee.jpg",
        "pets/cat.jpg": "chelsea.jpg",
        "portraits/1.jpg": "astronaut.jpg",
        "broken/cut-off.jpg": "coffee.jpg",
        "broken/shopping-list.jpg": None,
    },
)
"""Was asked nothing and said nothing: nothing of theirs is used, and two of their files are no good."""


def write_photos(customer: Customer, folder: Path) -> None:
    """Lay the customer's photos out in `folder`, as on their own disk."""
    for path, photo in customer.sends.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = _A_NOTE if photo is None else (PHOTOS / photo).read_bytes()
        target.write_bytes(data[: len(data) // 3] if path.endswith("cut-off.jpg") else data)
