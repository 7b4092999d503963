"""Which file the weights come from. Found without torch, so that a start that cannot be fails before anything runs."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import WeightsInvalid

SHIPPED = Path(__file__).parent.parent / "weights"
"""Where the weights lie that come along."""


def weights_file(network: str, chosen: Path | None) -> Path:
    """The file to load: the one chosen, else the one that ships. Raises `WeightsInvalid` when none can be read."""
    path = chosen or SHIPPED / f"{network}.safetensors"
    if chosen is None and network == "own":
        raise WeightsInvalid("BGBATCH_NETWORK=own needs the network's file in BGBATCH_WEIGHTS.")
    if chosen is None and not path.is_file():
        raise WeightsInvalid(
            f"bgbatch ships no weights for {network}. Import yours with "
            f"`bgbatch weights import FILE --network {network}` and name the result in BGBATCH_WEIGHTS."
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise WeightsInvalid(
            f"The weights file cannot be read: {error.strerror or type(error).__name__}. Look at BGBATCH_WEIGHTS."
        ) from None
    return path
