"""Make tests/workers/reference_masks.npz: what onnxruntime makes of the demo photos with the original ONNX file.

    python scripts/reference_masks.py u2netp.onnx tests/workers/reference_masks.npz

Kept as 16-bit fractions of 65535, so that a test in a clone without the ONNX file can compare to 1e-4.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tests.workers.photos import PHOTOS, network_input, onnx_output


def main() -> None:
    """Run onnxruntime on each photo."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("onnx", type=Path)
    arguments.add_argument("npz", type=Path)
    chosen = arguments.parse_args()
    masks = {path.stem: onnx_output(chosen.onnx, network_input(path)) for path in PHOTOS}
    np.savez_compressed(chosen.npz, **{name: np.round(mask * 65535).astype(np.uint16) for name, mask in masks.items()})
    print(f"{len(masks)} masks, {chosen.npz.stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
