"""Hash chains: each entry's hash covers its own content and the hash before it.

A changed, missing or re-ordered entry breaks the chain at a place that can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime

GENESIS = "0" * 64
"""The hash before the first entry."""

Content = Mapping[str, str | int | bool | None | datetime]
"""What an entry says. Times are written in UTC with microseconds."""


def chained_hash(before: str, content: Content) -> str:
    """SHA-256 in hex over `before` and the canonical JSON of `content` (sorted keys, no spaces, UTF-8)."""
    body = json.dumps(content, default=_moment_text, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(before.encode() + b"\n" + body.encode()).hexdigest()


def _moment_text(value: object) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    raise TypeError(f"a chain entry cannot hold {type(value).__name__}")
