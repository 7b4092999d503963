"""Ids: of a batch the exact time can be read off it; none carries anybody's words."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

import pytest

from schemas.ids import (
    BatchId,
    new_account_id,
    new_batch_id,
    new_grant_id,
    new_person_id,
    parse_batch_id,
    parse_grant_id,
    received_at,
)

EXAMPLE = BatchId("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
"""Of RFC 9562, appendix A.6."""
THEN = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


def test_a_batch_id_is_the_uuid_of_the_rfc_and_tells_its_time_to_the_millisecond() -> None:
    drawn = 0xCC3 << 62 | 0x18C4DC0C0C07398F
    assert new_batch_id(THEN, lambda length: drawn.to_bytes(length, "big")) == EXAMPLE == parse_batch_id(EXAMPLE)
    assert received_at(EXAMPLE) == THEN
    later = THEN + timedelta(microseconds=1_999)
    assert received_at(new_batch_id(later, os.urandom)) == THEN + timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "", "photos", EXAMPLE.upper(), f"{{{EXAMPLE}}}", EXAMPLE.replace("-", ""), EXAMPLE.replace("-7", "-4"),
        EXAMPLE.replace("-98", "-18"),
    ],
)  # fmt: skip
def test_nothing_else_is_one(text: str) -> None:
    assert parse_batch_id(text) is None


def test_one_that_says_that_it_comes_after_all_days_is_never_due() -> None:
    assert received_at(BatchId("ffffffff-ffff-7fff-bfff-ffffffffffff")) == datetime.max.replace(tzinfo=UTC)


def test_the_other_ids_are_a_letter_and_128_random_bits() -> None:
    for letter, new in (("a", new_account_id), ("p", new_person_id), ("g", new_grant_id)):
        assert new(lambda length: b"\xab" * length) == letter + "ab" * 16
    grant = new_grant_id(os.urandom)
    assert re.fullmatch("g[0-9a-f]{32}", grant)
    assert parse_grant_id(grant) == grant
    assert parse_grant_id(grant + "0") is parse_grant_id(grant.upper()) is parse_grant_id("") is None
