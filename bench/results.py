"""Where figures go: each bench writes its own section of bench/RESULTS.md, with the day and the machine.

What a person adds to a section stands under `### Notes` at its end, and stays when the bench is run again.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_NOTES = re.compile(r"^### Notes$.*", re.MULTILINE | re.DOTALL)


def write_section(title: str, lines: Sequence[str], device: str = "") -> None:
    """Put `lines` under `## title`, in place of what stood there. `device`: if not this machine's CPU."""
    where = device or f"{_cpu()}, {len(os.sched_getaffinity(0))} cores"
    stamp = f"{datetime.now(UTC):%Y-%m-%d}, {where}, Python {platform.python_version()}."
    text = RESULTS.read_text() if RESULTS.exists() else "# Results\n"
    old = _section(title)
    kept = [notes.group().strip() for found in old.finditer(text) for notes in _NOTES.finditer(found.group())]
    section = "\n".join([f"## {title}", "", stamp, "", *lines, *([""] if kept else []), *kept]) + "\n"
    text = old.sub(lambda _: f"{section}\n", text) if old.search(text) else f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text.rstrip() + "\n")


def section(title: str) -> list[str]:
    """What `write_section` put there: its lines, or none; without notes."""
    found = _section(title).search(RESULTS.read_text()) if RESULTS.exists() else None
    return _NOTES.sub("", found.group()).strip().splitlines()[4:] if found else []


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table as lines, numbers to the right."""
    rule = "|---" + "|---:" * (len(head) - 1) + "|"
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]


def _section(title: str) -> re.Pattern[str]:
    return re.compile(rf"^## {re.escape(title)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
