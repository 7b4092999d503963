"""A deadline is told of before it is missed, and once."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from store.records import fingerprints, nights, webhooks
from tests.flows.nights.market import EVENING, FIRST, Market, fill


def test_a_deadline_is_alerted_before_it_is_missed_and_once(market: Market) -> None:
    fill(market, 50)
    market.schedule(deadline_minutes=60)
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/hook", EVENING, os.urandom)
    market.minutes_per_photo = 2
    (night,) = market.run_due(FIRST)
    assert night.deadline_at == FIRST + timedelta(hours=1)
    assert night.alerted_at is not None
    assert night.alerted_at < night.deadline_at
    with market.parts.records.transaction() as connection:
        events = webhooks.events_of(connection, hook.webhook_id)
    assert sorted(each.kind for each in events) == ["batch.ended", "night.at_risk", "night.ended"]
    (risk,) = [each for each in events if each.kind == "night.at_risk"]
    assert datetime.fromisoformat(str(risk.body["estimate_at"])) == FIRST + timedelta(minutes=100)
    assert "listing" not in json.dumps([each.body for each in events])


@pytest.mark.parametrize("away", ["source", "place"])
def test_a_night_that_gets_no_further_is_alerted_before_its_deadline_is_missed_and_once(
    market: Market, away: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(market, 3)
    schedule = market.schedule(deadline_minutes=60)
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/hook", EVENING, os.urandom)
    if away == "place":
        market.target_folder.write_bytes(b"no folder: its disk is not there")
    else:
        Path(market.source_url.removeprefix("file://")).rename(market.target_folder.parent / "elsewhere")
    for minute in (0, 29, 31, 50):
        assert market.run_due(FIRST + timedelta(minutes=minute)) == []
    with market.parts.records.transaction() as connection:
        (night,) = nights.of_schedule(connection, schedule.schedule_id)
        events = webhooks.events_of(connection, hook.webhook_id)
    assert night.alerted_at == FIRST + timedelta(minutes=31)
    assert [each.kind for each in events].count("night.at_risk") == 1
    assert sum("store_fault" in page for page in market.pages) == 1
    why = "refused to write: Not a directory" if away == "place" else "could not be listed: No such file"
    assert why in caplog.text, "whoever runs it has nothing else to go by"
    assert str(market.target_folder.parent) not in caplog.text


def test_a_slow_delivery_is_alerted_before_the_deadline_is_missed(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 250)
    market.schedule(deadline_minutes=60)
    remember = fingerprints.remember

    def slowly(*given: object) -> None:
        remember(*given)  # type: ignore[arg-type]
        market.clock[0] += timedelta(minutes=50)

    monkeypatch.setattr(fingerprints, "remember", slowly)
    (night,) = market.run_due(FIRST)
    assert night.alerted_at == FIRST + timedelta(minutes=50)


def test_a_night_in_time_alerts_nobody(market: Market) -> None:
    fill(market, 50)
    market.schedule(deadline_minutes=60)
    market.minutes_per_photo = 1
    (night,) = market.run_due(FIRST)
    assert night.alerted_at is None
