"""What of a source is left out of its batch: counted by reason for the records, told to its owner with more."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from schemas.left_out import LeftOut, told
from schemas.naming import PHOTO_SUFFIXES, shown

_MOST_NAMES = 5


class Tally:
    """`counts`: files by reason. Names are kept for `str` alone, which is for the owner's own terminal."""

    def __init__(self) -> None:
        self.counts: Counter[LeftOut] = Counter()
        self._kinds: Counter[str] = Counter()
        self._bad_names: list[str] = []

    def leave_out(self, path: str, reason: LeftOut) -> None:
        """Count a file that is not in the batch."""
        self.counts[reason] += 1
        suffix = shown(PurePosixPath(path).suffix.lower(), 12) or "no suffix"
        self._kinds[suffix if reason is LeftOut.NOT_A_PHOTO else reason.words] += 1
        if reason is LeftOut.BAD_NAME and len(self._bad_names) < _MOST_NAMES:
            self._bad_names.append(shown(path))

    @property
    def zip_files(self) -> int:
        """How many of them are zip files, which may hold photos."""
        return self._kinds[".zip"]

    def instead(self) -> str:
        """What to say beside that there is no photo."""
        seen = f" Left out: {told(self.counts)}." if self.counts else ""
        return f"{seen} Photos end in {', '.join(sorted(PHOTO_SUFFIXES))}."

    def __str__(self) -> str:
        """How many of what, and the first names that cannot be kept."""
        counted = ", ".join(f"{count} × {kind}" for kind, count in sorted(self._kinds.items()))
        more = self.counts[LeftOut.BAD_NAME] - len(self._bad_names)
        names = [*self._bad_names, f"{more} more"] if more else self._bad_names
        return f"{counted} ({', '.join(names)})" if names else counted
