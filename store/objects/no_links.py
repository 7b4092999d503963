"""Folders by a path in which nothing is a link: each is opened inside the one before, and so is what lies in the last.

Who can make links in a place could else turn a folder, between a check and its use, into another customer's or ours.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

_ONLY_LOOKED_UP = getattr(os, "O_PATH", 0)  # a folder may let us through that does not let us list it


def open_folder(opened: ExitStack, path: str, inside: int | None = None, made_with: int | None = None) -> int:
    """A folder, open for as long as `opened` is. `path`: from the root of the disk, or from a folder that is open.

    `made_with`: the mode of what is not there yet; None: nothing is made. Raises `OSError`, for a link with ELOOP.
    """
    here = _open("/") if inside is None else os.dup(inside)
    try:
        for name in filter(None, path.split("/")):
            passed, here = here, _next(name, here, made_with)
            os.close(passed)  # else a few readers, far down, would have more open than a process may
    except BaseException:
        os.close(here)
        raise
    opened.callback(os.close, here)
    return here


def open_listed(opened: ExitStack, inside: int) -> int:
    """An open folder once more, to list it. Raises `OSError`."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=inside)
    opened.callback(os.close, descriptor)
    return descriptor


def open_file(opened: ExitStack, name: str, inside: int) -> int:
    """A file in an open folder, to read, without waiting for who writes into a pipe. Raises `OSError`."""
    descriptor = _open(name, inside, os.O_NONBLOCK)
    opened.callback(os.close, descriptor)
    return descriptor


def _next(name: str, inside: int, made_with: int | None) -> int:
    try:
        return _open(name, inside)
    except FileNotFoundError:
        if made_with is None:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, made_with, dir_fd=inside)
        return _open(name, inside)
    except NotADirectoryError:
        if stat.S_ISLNK(os.lstat(name, dir_fd=inside).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise


def _open(name: str, inside: int | None = None, flags: int = os.O_DIRECTORY | _ONLY_LOOKED_UP) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=inside)
