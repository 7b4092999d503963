"""What a program gets when something is wrong: a stable code, a sentence, and a status that says whose move it is."""

from __future__ import annotations

from schemas.record import Record


class Problem(Record):
    """`code` is stable, so that programs may depend on it (see `schemas.errors`); `sentence` is for people."""

    code: str
    sentence: str


_MEANINGS = {
    400: "What was asked for cannot be.",
    401: "No key came, or one that is unknown or revoked.",
    403: "The key may not do this.",
    404: "There is no such thing in this account.",
    409: "It does not fit what is there now.",
    422: "The request does not have the form that is described here.",
    429: "Too often; `Retry-After` says how many seconds to wait.",
    500: "Our fault. Try again later.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, object]]:
    """For a route's `responses`: these, and those that any route can give."""
    wanted = {401, 422, *statuses}
    return {status: {"model": Problem, "description": _MEANINGS[status]} for status in sorted(wanted)}
