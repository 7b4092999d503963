"""Folders of Ray sessions that are dead: Ray leaves them, with its logs and whatever it spilled, until somebody cleans.

A session is dead when the process that its name ends with is gone and no living process was started for it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

_NAME = re.compile(r"session_\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}_\d+_(?P<pid>\d+)")


def dead_sessions(names: Collection[str], pids: Collection[int], command_lines: Collection[str]) -> list[str]:
    """Which of these folder names belong to sessions that are over. Pure."""
    dead = []
    for name in names:
        found = _NAME.fullmatch(name)
        if found and int(found["pid"]) not in pids and not any(name in line for line in command_lines):
            dead.append(name)
    return sorted(dead)


def sweep_sessions(root: Path) -> int:
    """Delete the folders of dead sessions under `root` that are ours to delete. Returns how many went."""
    if not root.is_dir():
        return 0
    ours = [each.name for each in root.iterdir() if each.is_dir() and not each.is_symlink() and _is_ours(each)]
    swept = 0
    for name in dead_sessions(ours, *_processes()):
        shutil.rmtree(root / name, ignore_errors=True)
        swept += not (root / name).exists()
    return swept


def _is_ours(folder: Path) -> bool:
    return os.geteuid() in (0, folder.stat().st_uid)


def _processes() -> tuple[set[int], list[str]]:
    pids: set[int] = set()
    lines = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
        pids.add(int(each.name))
    return pids, lines
