"""Who a process is: the version of bgbatch, its very code, and its settings. Driver and actors must be the same.

A version alone is not enough: a cluster may still run yesterday's image of the same version.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from schemas.errors import VersionSkew
from store.settings import Settings

_SHARED = ("schemas", "store", "workers")
"""Packages whose code runs on both sides of a call."""


@cache
def own_code() -> str:
    """Version, and a digest of the sources that drivers and actors share."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(each for package in _SHARED for each in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{version('bgbatch')}+{digest.hexdigest()[:12]}"


def settings_digest(settings: Settings) -> str:
    """The settings that pass through Ray, in short."""
    return hashlib.sha256(json.dumps(settings.without_secrets(), sort_keys=True).encode()).hexdigest()[:12]


def identity(settings: Settings) -> str:
    """Code and settings of this process. On one machine both read the same files, whoever may be editing them."""
    return f"{own_code() if settings.ray_address else version('bgbatch')} {settings_digest(settings)}"


def require_same(driver: str, actor: str) -> None:
    """Raises `VersionSkew` when they are not."""
    if driver != actor:
        raise VersionSkew(
            f"The driver is bgbatch {driver} and the worker {actor} (version, code, settings). Give both the same "
            "image and settings; docs/runbook.md says how to upgrade without losing work."
        )
