"""Make workers/weights/u2netp.safetensors from the U²-Netp ONNX file that rembg uses. Run once; the result
is committed.

    python scripts/convert_u2netp.py u2netp.onnx workers/weights/u2netp.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from workers.networks.importing import import_weights
from workers.networks.registry import find_network


def main() -> None:
    """Convert one file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("onnx", type=Path)
    arguments.add_argument("safetensors", type=Path)
    chosen = arguments.parse_args()
    import_weights(chosen.onnx, find_network("u2netp"), chosen.safetensors)
    print(hashlib.sha256(chosen.safetensors.read_bytes()).hexdigest(), chosen.safetensors)


if __name__ == "__main__":
    main()
