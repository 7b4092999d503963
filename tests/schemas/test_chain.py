"""Who keeps an entry of a chain can check it with the versions to come: it is hashed as these very bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import pytest

from schemas.chain import GENESIS, chained_hash
from schemas.results import Failed

ONE = datetime(2026, 11, 25, 13, tzinfo=timezone(timedelta(hours=1)))


def test_what_is_said_is_hashed_in_one_way() -> None:
    body = '{"at":"2026-11-25T12:00:00.000000+00:00","by":null,"count":3,"what":"Käfer","yes":true}'
    said = {"what": "Käfer", "at": ONE, "by": None, "yes": True, "count": 3}
    assert chained_hash(GENESIS, said) == sha256(b"0" * 64 + b"\n" + body.encode()).hexdigest()
    for unknown in (ONE.replace(tzinfo=None), ONE.timetz(), b"x"):
        with pytest.raises(TypeError):
            chained_hash(GENESIS, {"at": unknown})  # type: ignore[dict-item]


def test_a_time_is_kept_in_utc_wherever_it_was_told() -> None:
    assert Failed(number=1, code="x", sentence="", finished_at=ONE).finished_at.tzinfo is UTC
    with pytest.raises(ValueError, match="timezone"):
        Failed(number=1, code="x", sentence="", finished_at=ONE.replace(tzinfo=None))
