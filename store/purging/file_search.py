"""Looks for bytes in files: whether anything of a customer is still somewhere, however it came there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_AT_ONCE = 1 << 22


def files_with(
    needles: Sequence[bytes], folders: Iterable[Path], but_not: Sequence[Path] = (), since: float = 0.0
) -> Iterator[Path]:
    """Every regular file in or at `folders` that holds any of `needles`, in its name or bytes.

    `since`: what was changed before is not read, by a time in seconds that nobody but the system sets.
    """
    for folder in folders:
        for path in _files(folder, but_not):
            if any(needle in os.fsencode(path.name) for needle in needles) or _holds(path, needles, since):
                yield path


def _files(folder: Path, but_not: Sequence[Path]) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if Path(place, name) not in but_not]
        for name in names:
            yield Path(place, name)


def _holds(path: Path, needles: Sequence[bytes], since: float) -> bool:
    longest = max(map(len, needles))
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_ctime < since:
            return False
        with path.open("rb") as file:
            before = b""
            while block := file.read(_AT_ONCE):
                text = before + block
                if any(needle in text for needle in needles):
                    return True
                before = text[-longest:]
    except OSError:  # gone, or not ours to read
        return False
    return False
