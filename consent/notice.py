"""The text that a person is shown before they say yes: versioned, with the hash of its exact words.

A published version never changes (a test holds its hash); other words are another version, added below. A version that
`asks_again` ends the worth of all grants given before it: they admit nothing new until the person confirms again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.errors import NotFound
from schemas.industries import Industry


@dataclass(frozen=True)
class Section:
    """A heading and its paragraphs."""

    heading: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Notice:
    """What is shown. `industries`: tag, label and sentence of each choice, as they stood."""

    version: str
    published_at: datetime
    asks_again: bool
    title: str
    sections: tuple[Section, ...]
    industries: tuple[tuple[str, str, str], ...]

    @property
    def text(self) -> str:
        """Every word that is shown, in order; the page shows exactly these."""
        lines = [self.title]
        for section in self.sections:
            lines += ["", section.heading, *section.paragraphs]
        lines += ["", *(f"{label}: {sentence}" for _, label, sentence in self.industries)]
        return "\n".join(lines) + "\n"

    @property
    def sha256(self) -> str:
        """The hash that each grant keeps of what was shown."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_FIRST = Notice(
    version="2026-11-24",
    published_at=datetime(2026, 11, 24, tzinfo=UTC),
    asks_again=False,
    title="AI Training Data: what turning it on means",
    sections=(
        Section(
            "What you would allow",
            (
                "Images from batches that you send after you turn this on, together with the masks that we make of "
                "them, may be kept longer than 24 hours, until you turn it off, and used to train and improve our "
                "background removal models. Only for the industries that you choose below, and for nothing else.",
            ),
        ),
        Section(
            "If you do not turn it on",
            (
                "Nothing that you send is used to train or improve a model, and nothing is kept for more than 24 "
                "hours. Everything works just the same. This is how it is now, and how it stays if you do nothing.",
            ),
        ),
        Section(
            "Your images stay yours",
            ("You keep exclusive ownership of every image. You give a permission, and only that.",),
        ),
        Section(
            "You can take it back at any time",
            (
                "Turn it off on this page, for one industry or for all, with one press and without giving a reason. "
                "From that moment nobody can read your images out of the training data any more. Their files are "
                "deleted within 24 hours, and you get a receipt here that says so.",
                "A model that was already trained with them cannot unlearn what it has learned. No later training will "
                "use them, and your account page shows who took them for training, and when.",
                "If you turn it on again later, that is a new permission for what you send from then on.",
            ),
        ),
    ),
    industries=tuple((each.value, each.label, each.sentence) for each in Industry),
)

NOTICES: tuple[Notice, ...] = (_FIRST,)
"""All versions, oldest first."""

CURRENT = NOTICES[-1]


def find_notice(version: str) -> Notice:
    """The notice of that version. Raises `NotFound`."""
    for notice in NOTICES:
        if notice.version == version:
            return notice
    raise NotFound("There is no consent notice of that version.")


def reconsent_date(notices: Sequence[Notice]) -> datetime | None:
    """Grants given before this time no longer count; None when no version asks again."""
    return max((notice.published_at for notice in notices if notice.asks_again), default=None)


RECONSENT_FROM = reconsent_date(NOTICES)
