"""What a bench draws for docs/img."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLOTS = Path(__file__).parents[1] / "docs" / "img"


def plots() -> Any:
    """Pyplot of matplotlib, without a screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, name: str) -> None:
    """As docs/img/`name`."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(PLOTS / name, dpi=130, bbox_inches="tight")
