"""The base of all records: frozen, strict about unknown fields, written as JSON the same way each time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen value. Unknown fields are refused, so that a misspelt one is no silent default.

    What does not fit is not quoted: engines and logs keep what errors say, and it may be a customer's name for a photo.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("In UTC that is in no year that there is.") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its zone, kept in UTC. A naive one is refused."""
