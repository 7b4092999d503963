"""What was compiled is kept in a folder: the next process, and the next start, load it instead of compiling again."""

from __future__ import annotations

import os
from pathlib import Path


def keep_compiled_in(folder: Path) -> None:
    """Tell torch's compilers so, before they are used first. What the operator set already stays."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
