"""What can be told of a mask without knowing the truth, and the flags that a person should look at before delivery."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.results import Scores

Pixels = npt.NDArray[np.uint8]


def score(mask: Pixels) -> Scores:
    """Scores of a mask of 0…255, at the network's own size."""
    alpha = mask.astype(np.float32) / 255
    subject = alpha > 0.05
    soft = subject & (alpha < 0.95)
    return Scores(
        coverage=float(alpha.mean()),
        edge_uncertainty=float(soft.sum() / max(int(subject.sum()), 1)),
    )
