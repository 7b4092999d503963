"""Why a file of a source is not in its batch. It is counted for each batch; which files they were is kept nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class LeftOut(StrEnum):
    """The reasons. The values are stable: programs may depend on them."""

    BAD_NAME = "bad_name"
    HIDDEN = "hidden"
    LINK = "link"
    NOT_A_PHOTO = "not_a_photo"

    @property
    def words(self) -> str:
        """What such files are called."""
        return _WORDS[self]


_WORDS = {
    LeftOut.BAD_NAME: "names that cannot be kept",
    LeftOut.HIDDEN: "hidden files",
    LeftOut.LINK: "links",
    LeftOut.NOT_A_PHOTO: "files of other kinds",
}


def told(left_out: Mapping[LeftOut, int]) -> str:
    """How many of what, for people; nothing when nothing was left out."""
    return ", ".join(f"{count} × {reason.words}" for reason, count in sorted(left_out.items()))
