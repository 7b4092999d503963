"""Schedules added, changed, paused and removed, in the middle of a night too."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from flows.nights import look as night_look
from flows.nights import steps as night_steps
from flows.nights import timetable
from flows.nights.report import markdown, report_of
from flows.nights.worker import Job, Worker
from flows.parts import Parts
from portal.schedules import MOST_MINUTES, Wanted, add, remove, retime
from schemas.batch import BatchState, Item, Stamp
from schemas.errors import (
    AlreadyExists,
    BadOptions,
    NotAllowed,
    NotFound,
    UserError,
)
from schemas.options import CutoutOptions, Format
from store.outside import allowed
from store.records import fingerprints, line, nights, schedules, tables, webhooks
from store.records.batches import get_batch
from store.records.closing import erase_account
from store.records.database import Records
from store.records.nights import NightState
from store.records.people import create_account
from tests.consent.postgres import current_database
from tests.flows.nights.market import DAY, EVENING, FIRST, Market, fill, open_market
from tests.schedules import nightly


@pytest.mark.parametrize("begun", [False, True])
def test_a_schedule_that_is_removed_in_mid_night_has_its_batch_called_off_and_that_is_told(
    market: Market, begun: bool
) -> None:
    fill(market, 12)
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/", EVENING, os.urandom)
    (night,) = market.run_due(FIRST, cuts=False)
    assert night.batch_id is not None
    with market.parts.records.transaction() as connection:
        if begun:
            assert line.claim(connection, night.batch_id, "dispatcher", FIRST, 12)
        (over,) = remove(connection, schedule.schedule_id, market.parts.clock)
        assert (over.state, over.failures, over.ended_at) == ("cancelled", {"schedule_removed": 12}, FIRST)
        assert line.is_called_off(connection, night.batch_id)
        assert line.in_line(connection, FIRST) == []
        assert (get_batch(connection, night.batch_id).state is BatchState.CANCELLED) is not begun
        told = {each.kind: each.body["state"] for each in webhooks.events_of(connection, hook.webhook_id)}
    assert told == {"night.ended": "cancelled"} | ({} if begun else {"batch.ended": "cancelled"})
    page = markdown(report_of(over.model_copy(update={"deleted": 1}), FIRST), schedule)
    assert "removed before these were delivered" in page
    assert "Which they are" not in page, "nothing more is written into the customer's place"
    assert market.run_due(FIRST + DAY) == []


def test_a_schedule_whose_night_has_no_batch_yet_or_an_ended_one_is_removed_and_the_batch_stays_as_it_ended(
    market: Market,
) -> None:
    fill(market, 2)
    ended, away = market.schedule(), market.schedule(deliver=None, source=f"{market.source_url}/nowhere")
    assert [each.schedule_id for each in market.run_due(FIRST, cuts=False)] == [ended.schedule_id]
    with market.parts.records.transaction() as connection:
        (night,) = nights.of_schedule(connection, ended.schedule_id)
        (without,) = nights.of_schedule(connection, away.schedule_id)
    assert night.batch_id is not None
    assert without.batch_id is None
    market._process(market.parts, night.batch_id)
    with market.parts.records.transaction() as connection:
        for schedule in (ended, away):
            assert [each.state for each in remove(connection, schedule.schedule_id, market.parts.clock)] == [
                "cancelled"
            ]
        assert get_batch(connection, night.batch_id).state is BatchState.COMPLETED
        assert not line.is_called_off(connection, night.batch_id)


def test_no_night_is_begun_of_a_schedule_that_was_removed_since_it_was_looked_at(market: Market) -> None:
    """Nobody could hold it, and it would be going for ever."""
    fill(market, 1)
    job = Job(market.parts, market.schedule(), Worker("one", os.urandom, None))
    market.clock[0] = FIRST
    with market.parts.records.transaction() as connection:
        remove(connection, job.schedule.schedule_id, market.parts.clock)
    for begin in (night_steps.run_schedule, night_steps.run_now):
        with pytest.raises(NotFound):
            begin(job)
    with market.parts.records.reading() as connection:
        assert nights.of_schedule(connection, job.schedule.schedule_id) == []


@pytest.mark.parametrize("ends", ["the schedule", "the account"])
def test_a_night_that_is_being_begun_while_its_schedule_ends_is_over_too(postgres: Records, ends: str) -> None:
    with postgres.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "o@bazaar.example", EVENING, os.urandom)
        schedule = nightly(account_id, EVENING)
        schedules.add(connection, schedule)

    def end() -> None:
        with postgres.transaction() as connection:
            if ends == "the schedule":
                remove(connection, schedule.schedule_id, lambda: FIRST)
            else:
                erase_account(connection, account_id, FIRST)

    other = threading.Thread(target=end)
    with postgres.transaction() as connection:
        schedules.take_turns(connection, schedule.schedule_id)
        assert nights.begin(connection, schedule, FIRST, FIRST, os.urandom)
        other.start()
        other.join(0.5)  # it comes as far as it can
    other.join(300)
    with postgres.reading() as connection:
        assert [each.state for each in nights.of_schedule(connection, schedule.schedule_id)] == ["cancelled"]


def test_a_schedule_that_is_removed_between_a_look_and_its_seal_leaves_nothing_in_line(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    schedule, seal = market.schedule(), night_look.seal

    def removed_first(parts: Parts, stamp: Stamp, items: list[Item], **how: Any) -> None:
        with parts.records.transaction() as connection:
            remove(connection, schedule.schedule_id, parts.clock)
        seal(parts, stamp, items, **how)

    monkeypatch.setattr(night_look, "seal", removed_first)
    assert market.run_due(FIRST, cuts=False) == []
    with market.parts.records.transaction() as connection:
        assert line.in_line(connection, FIRST) == []
        assert line.load_of(connection, FIRST).batches == 0


def test_removing_a_schedule_removes_its_fingerprints_and_its_key(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    market.run_due(FIRST)
    with market.parts.records.transaction() as connection:
        assert remove(connection, schedule.schedule_id, market.parts.clock) == []
        assert fingerprints.known(connection, schedule.schedule_id) == {}
        assert schedules.list_all(connection) == []
        assert nights.of_schedule(connection, schedule.schedule_id)[0].state is NightState.COMPLETED


def test_a_paused_schedule_starts_nothing_and_catches_nothing_up(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        schedules.pause(connection, schedule.schedule_id, EVENING)
    assert market.run_due(FIRST) == []
    with market.parts.records.transaction() as connection:
        schedules.resume(connection, schedule.schedule_id, FIRST + timedelta(hours=1))
    assert market.run_due(FIRST + timedelta(hours=2)) == []
    assert [each.due_at for each in market.run_due(FIRST + DAY)] == [FIRST + DAY]


def test_another_time_makes_no_photo_be_done_again_and_catches_nothing_up(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    market.run_due(FIRST)
    noon = FIRST + timedelta(hours=11)
    with market.parts.records.transaction() as connection:
        changed = retime(
            connection, schedule.schedule_id, lambda: noon, cron="0 9 * * *", timezone="UTC", deadline_minutes=60
        )
    assert (changed.cron, changed.timezone, changed.deadline_minutes) == ("0 9 * * *", "UTC", 60)
    assert market.run_due(noon) == [], "nine o'clock of today has passed"
    (night,) = market.run_due(FIRST + DAY + timedelta(hours=8))
    assert (night.due_at.hour, night.skipped, len(market.cut)) == (9, 3, 3)


def test_another_deadline_lets_a_night_that_was_missed_be_caught_up(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        retime(connection, schedule.schedule_id, lambda: FIRST + timedelta(hours=1), deadline_minutes=600)
    assert [each.due_at for each in market.run_due(FIRST + timedelta(hours=2))] == [FIRST]


def test_a_deadline_of_before_there_was_a_limit_keeps_nobody_from_another_time(market: Market) -> None:
    schedule = market.schedule(deadline_minutes=60)
    with market.parts.records.transaction() as connection:
        connection.execute(update(tables.schedules).values(deadline_minutes=MOST_MINUTES + 1))
        assert retime(connection, schedule.schedule_id, market.parts.clock, cron="0 4 * * *").cron == "0 4 * * *"
        with pytest.raises(UserError, match="1 to 100000 minutes"):
            retime(connection, schedule.schedule_id, market.parts.clock, deadline_minutes=MOST_MINUTES + 1)


@pytest.mark.parametrize("wrong", [{"cron": "often"}, {"timezone": "Mars/Olympus"}, {"deadline_minutes": 0}])
def test_times_that_cannot_be_are_refused_and_change_nothing(market: Market, wrong: dict[str, object]) -> None:
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        with pytest.raises(UserError):
            retime(connection, schedule.schedule_id, market.parts.clock, **wrong)
        assert schedules.find(connection, schedule.schedule_id) == schedule


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"cron": "0 25 * * *"}, UserError),
        ({"cron": "often"}, UserError),
        ({"timezone": "Mars/Olympus"}, UserError),
        ({"source": "file:///etc"}, NotAllowed),
        ({"deliver": "s3://somebody-elses"}, NotAllowed),
        ({"deadline_minutes": 0}, UserError),
        ({"options": CutoutOptions(bg_image="wall.jpg")}, BadOptions),
        ({"options": CutoutOptions(consistent=True)}, BadOptions),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_added(market: Market, wrong: dict[str, object], kind: type) -> None:
    with pytest.raises(kind):
        market.schedule(**wrong)


@pytest.mark.parametrize("source", ["cars", "bikes"])
@pytest.mark.parametrize(("below", "other"), [("", ""), ("/cars", ""), ("", "/cars")])
def test_two_schedules_do_not_write_the_same_cutouts(market: Market, source: str, below: str, other: str) -> None:
    first = market.schedule(source=f"{market.source_url}/cars", deliver=f"{market.target_url}{below}")
    wanted = {"source": f"{market.source_url}/{source}", "deliver": f"{market.target_url}{other}"}
    for options in (CutoutOptions(), CutoutOptions(bg_color="white"), CutoutOptions(crop=True)):
        with pytest.raises(AlreadyExists, match=f"{first.schedule_id} delivers png files .* remove that schedule"):
            market.schedule(**wanted, options=options)
    for format in (Format.JPG, Format.WEBP):
        market.schedule(**wanted, options=CutoutOptions(format=format))
    market.schedule(**wanted | {"deliver": None})
    market.schedule(**wanted | {"deliver": f"{market.target_url}-of-bikes"})
    with market.parts.records.transaction() as connection:
        remove(connection, first.schedule_id, market.parts.clock)
    market.schedule(**wanted)


def test_a_paused_schedule_may_go_on_so_its_place_is_not_free(market: Market) -> None:
    first = market.schedule()
    with market.parts.records.transaction() as connection:
        schedules.pause(connection, first.schedule_id, EVENING)
    with pytest.raises(AlreadyExists, match="though it is paused, delivers"):
        market.schedule(options=CutoutOptions(bg_color="white"))


def test_a_place_is_known_again_by_another_path_to_it(market: Market) -> None:
    market.schedule()
    market.target_folder.mkdir(parents=True)
    link = market.target_folder.with_name("link")
    link.symlink_to(market.target_folder)
    with market.parts.records.transaction() as connection:
        allowed.allow(connection, market.account_id, f"file://{link}", EVENING)
    with pytest.raises(AlreadyExists):
        market.schedule(deliver=f"file://{link}")
    with pytest.raises(UserError, match="taken for photos"):
        market.schedule(source=f"file://{link}", deliver=None)


def test_no_schedule_takes_anothers_cutouts_for_photos_on_and_on(market: Market) -> None:
    first = market.schedule()
    turned = {"source": market.target_url, "options": CutoutOptions(format=Format.JPG)}
    with pytest.raises(UserError, match=f"{first.schedule_id} delivers into that source"):
        market.schedule(**turned, deliver=f"{market.target_url}-of-bikes")
    with pytest.raises(UserError, match=f"{first.schedule_id} has its photos there"):
        market.schedule(source=f"{market.target_url}-of-bikes", deliver=f"{market.source_url}/bikes")


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_of_two_that_are_added_at_once_one_is_refused(tmp_path: Path, records_on: str) -> None:
    records = {"records_url": current_database()} if records_on == "postgresql" else {}
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", **records)
    want = Wanted(cron="0 2 * * *", source=market.source_url, deliver=market.target_url)
    refused: list[AlreadyExists] = []

    def add_one(connection: Connection) -> None:
        add(connection, market.account_id, want, market.parts.settings, market.parts.clock, os.urandom)

    def be_second() -> None:
        try:
            with market.parts.records.transaction() as connection:
                add_one(connection)
        except AlreadyExists as fault:
            refused.append(fault)

    second = threading.Thread(target=be_second)
    with market.parts.records.transaction() as connection:
        add_one(connection)
        second.start()
        second.join(1)  # it waits for the end of this one
    second.join()
    assert len(refused) == 1
    market.parts.records.engine.dispose()


def test_cutouts_must_not_be_delivered_into_the_source(market: Market) -> None:
    with pytest.raises(UserError, match="Keep them apart"):
        market.schedule(deliver=f"{market.source_url}/cutouts")


def test_a_deployment_starts_by_cron_and_time_zone_and_knows_only_an_id(market: Market) -> None:
    from flows.nights.due_nights import deployments

    schedule = market.schedule()
    (made,) = deployments(market.parts)
    (start,) = made.schedules or ()
    assert (start.schedule.cron, start.schedule.timezone) == ("0 2 * * *", "Europe/Berlin")  # type: ignore[union-attr]
    assert made.parameters == {"schedule_id": schedule.schedule_id}
    assert "bazaar" not in made.model_dump_json()


def test_of_two_that_change_its_times_at_once_neither_undoes_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite one waits for the other."""
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", records_url=current_database())
    schedule, check, others = market.schedule(), timetable.check, []

    def meanwhile(cron: str, timezone: str) -> None:
        check(cron, timezone)
        if not others:
            others.append("")
            with market.parts.records.transaction() as connection:
                retime(connection, schedule.schedule_id, market.parts.clock, deadline_minutes=240)

    monkeypatch.setattr(timetable, "check", meanwhile)
    with market.parts.records.transaction() as connection:
        changed = retime(connection, schedule.schedule_id, market.parts.clock, cron="0 4 * * *")
    assert (changed.cron, changed.deadline_minutes, changed.resumed_at) == ("0 4 * * *", 240, EVENING)
    market.parts.records.engine.dispose()


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_an_account_with_one_schedule_does_not_wait_for_all_of_one_with_many(tmp_path: Path, records_on: str) -> None:
    url = current_database() if records_on == "postgresql" else ""
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", records_url=url)
    names: dict[str, str] = {}
    for name, account_id in (("bazaar", market.account_id), ("dealer", None)):
        with market.parts.records.transaction() as connection:
            if account_id is None:
                account_id, _ = create_account(connection, name, "o@dealer.example", EVENING, os.urandom)
            for number in range(3 if name == "bazaar" else 1):
                place = f"file://{tmp_path}/{name}-{number}"
                allowed.allow(connection, account_id, place, EVENING)
                options = CutoutOptions()
                wanted = Wanted(cron="0 2 * * *", timezone="Europe/Berlin", source=place, options=options)
                made = add(connection, account_id, wanted, market.parts.settings, market.parts.clock, os.urandom)
                names[made.schedule_id] = f"{name}-{number}"
            market.clock[0] += timedelta(seconds=1)
    with market.parts.records.reading() as connection:
        found = [names[each] for each in schedules.list_ids(connection)]
    assert [each.partition("-")[0] for each in found] == ["bazaar", "dealer", "bazaar", "bazaar"]
    market.parts.records.engine.dispose()
