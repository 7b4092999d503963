"""The photos that ship, and what onnxruntime makes of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).parents[2]
PHOTOS = sorted((ROOT / "portal" / "demo_photos").glob("*.jpg"))
REFERENCES = Path(__file__).with_name("reference_masks.npz")

Floats = npt.NDArray[np.float32]


def original_onnx() -> list[Path]:
    """The ONNX file that the shipped weights were made from, where this machine has it."""
    places = [Path(os.environ.get("BGBATCH_TEST_U2NETP_ONNX", "")), ROOT.parent / "shared" / "data" / "u2netp.onnx"]
    return [place for place in places if place.is_file()][:1]


def network_input(photo: Path) -> Floats:
    """1 × 3 × 320 × 320, as U²-Net's authors and rembg prepare it; written apart from our own code on purpose."""
    image = Image.open(photo).convert("RGB").resize((320, 320), Image.Resampling.LANCZOS)
    values = np.asarray(image).astype(np.float64) / np.asarray(image).max()
    values = (values - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    return values.transpose(2, 0, 1)[None].astype(np.float32)


def stretched(raw: Floats) -> Floats:
    """0 to 1 by its own least and greatest value."""
    return (raw - raw.min()) / (raw.max() - raw.min())


def onnx_output(onnx: Path, image: Floats) -> Floats:
    """The mask of onnxruntime on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    return stretched(session.run(None, {session.get_inputs()[0].name: image})[0][0, 0])
