"""A published text never changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from consent.notice import CURRENT, NOTICES, find_notice, reconsent_date
from schemas.errors import NotFound
from tests.consent.conftest import NOON

PUBLISHED = {
    "2026-11-24": (
        datetime(2026, 11, 24, tzinfo=UTC),
        "0ae8ef1d7c9c6220299bf814a1629653f72f1e63de7ffc6df8bee79e572368db",
    ),
}


def test_published_texts_are_as_they_were_and_of_their_day() -> None:
    now = {each.version: (each.published_at, each.sha256) for each in NOTICES}
    assert now == PUBLISHED, "other words need another version"


def test_versions_are_found() -> None:
    assert find_notice(CURRENT.version) is CURRENT
    with pytest.raises(NotFound):
        find_notice("1999-01-01")


def test_only_a_text_that_asks_again_ends_older_grants() -> None:
    second = replace(CURRENT, version="2", published_at=NOON, asks_again=True)
    third = replace(CURRENT, version="3", published_at=NOON + timedelta(days=1))
    assert reconsent_date([CURRENT, third]) is None
    assert reconsent_date([CURRENT, second, third]) == NOON
