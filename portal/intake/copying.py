"""Photos of this machine, copied into a batch. One that cannot be read costs its own result."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from flows.parts import Parts
from schemas.batch import UNREAD, Stamp
from store.transient.transient_store import source_key


def is_photo_file(path: Path) -> bool:
    """Whether there is a file, and no link, pipe or the like. One out of reach counts: it is told when it is read."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


@dataclass(frozen=True)
class Copying:
    """Copies photos into one batch. `unread`: by path, why those that could not be read were not."""

    parts: Parts
    stamp: Stamp
    unread: dict[str, str] = field(default_factory=dict)

    def copy(self, number: int, path: str, file: Path) -> tuple[int, str]:
        """The photo's size and `Item.source`. Raises `PastDeadline`, `StoreFault`.

        Raises `OSError` for the photo that lies behind the others: else each of them would be told of it.
        """
        most = self.parts.settings.max_bytes
        try:
            with open(file, "rb", opener=_without_waiting) as reader:
                size = os.fstat(reader.fileno()).st_size
                data = reader.read(most + 1) if size <= most else None
        except OSError as fault:
            if path == self.stamp.options.bg_image:
                raise
            self.unread[path] = fault.strerror or type(fault).__name__
            return 0, UNREAD
        if data is None or len(data) > most:  # it gets its own result, without its bytes
            return max(size, most + 1), ""
        self.parts.transient.write(self.stamp, source_key(self.stamp.batch_id, number), data)
        return len(data), ""


def _without_waiting(path: str, flags: int) -> int:
    """A file that has become a pipe since it was listed is empty: nobody may ever write into it."""
    return os.open(path, flags | os.O_NONBLOCK)
