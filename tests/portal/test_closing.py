"""Closing an account leaves a random id, numbers and receipts; every grant, batch, key, session, name is gone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from sqlalchemy import Connection, event, insert, select

from consent import ledger
from consent.ledger import Refusal
from consent.suppression import open_suppressions
from flows import calling_off
from flows.parts import Parts, open_parts
from flows.receive import stamp_batch
from portal.closing import close_account
from portal.intake.copying import Copying
from portal.intake.folder import upload
from schemas.clock import Clock
from schemas.consent import Act, Method
from schemas.errors import NotAllowed, NotFound
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.outside import allowed
from store.purging.receipts import list_receipts, verify_receipts
from store.records import api_keys, line, nights, people, schedules, sessions, tables, webhooks
from store.records.batches import get_batch
from store.records.closing import ERASED, KEPT, erase_account
from store.records.nights import NightState
from tests.consent.conftest import NOON, Owner, later, new_owner
from tests.consent.postgres import current_database
from tests.records import at_home


@pytest.fixture(params=["sqlite", "postgresql"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Parts]:
    url = "" if request.param == "sqlite" else current_database()
    parts = open_parts(at_home(tmp_path / "home", records_url=url), ticking_from(later(30)))
    yield parts
    parts.records.engine.dispose()


def ticking_from(start: datetime) -> Clock:
    """A clock on which each look takes a second."""
    seconds = itertools.count()
    return lambda: start + timedelta(seconds=next(seconds))


@pytest.fixture
def owner(parts: Parts) -> Owner:
    return new_owner(parts.records, "Smith & Sons Motors")


def send(parts: Parts, owner: Owner, folder: Path) -> str:
    photo = folder / "VIN1.jpg"
    photo.write_bytes(b"a photo")
    stamp = stamp_batch(parts, owner.account_id, Industry.AUTOMOTIVE, CutoutOptions(), Random(3).randbytes)
    upload(Copying(parts, stamp), {"VIN1.jpg": photo}, on_item=lambda: None)
    return stamp.batch_id


def close(parts: Parts, owner: Owner):
    by = Refusal(owner.account_id, Method.BUTTON, parts.clock(), actor=owner.person_id, page="/account/close")
    return close_account(parts.settings, parts.records, parts.transient.objects, parts.clock, by)


def test_closing_ends_grants_and_purges_batches_at_once(parts: Parts, owner: Owner, tmp_path: Path) -> None:
    (grant,) = owner.press(Industry.AUTOMOTIVE)
    other = new_owner(parts.records, "Bazaar")
    batch_id, theirs = send(parts, owner, tmp_path), send_for_other(parts, other, tmp_path)
    done = close(parts, owner)
    assert [each.grant_id for each in done.grants] == [grant.grant_id]
    assert [(each.subject, each.objects, each.remaining) for each in done.receipts] == [(batch_id, 3, 0)]
    assert done.waiting == 0
    left = {each.key.split("/")[1] for each in parts.transient.objects.walk("")}
    assert left == {theirs}, "another account's batch stays"
    with parts.records.transaction() as connection:
        assert ledger.live_grants(connection) == []
        assert [event.act for event in ledger.read_events(connection)] == [Act.GRANTED, Act.WITHDRAWN]
        assert ledger.verify(connection) == 2
        assert verify_receipts(list_receipts(connection)) == 1
        assert get_batch(connection, batch_id).purged_at is not None
        assert line.is_called_off(connection, batch_id), "a worker that has it stops"
        assert not line.is_called_off(connection, theirs)
    assert open_suppressions(parts.settings).files("grants") == [f"{grant.grant_id}.json"]


def send_for_other(parts: Parts, other: Owner, folder: Path) -> str:
    stamp = stamp_batch(parts, other.account_id, None, CutoutOptions(), Random(4).randbytes)
    photo = folder / "1.jpg"
    photo.write_bytes(b"another photo")
    upload(Copying(parts, stamp), {"1.jpg": photo}, on_item=lambda: None)
    return stamp.batch_id


def test_nobody_comes_in_any_more(parts: Parts, owner: Owner, tmp_path: Path) -> None:
    with parts.records.transaction() as connection:
        _, key = api_keys.create_key(
            connection, owner.account_id, owner.person_id, "nightly", NOON, Random(7).randbytes
        )
        link = sessions.create_sign_in_link(connection, owner.person_id, later(29), Random(8).randbytes)
        people.set_identity(connection, owner.person_id, "https://provider.example", "smith-1")
    close(parts, owner)
    with parts.records.transaction() as connection:
        assert api_keys.find_key(connection, key) is None
        assert not sessions.person_of_link(connection, link, later(29))
        assert sessions.find_session(connection, owner.act.session_token, later(30)) is None
        assert people.person_of_identity(connection, "https://provider.example", "smith-1") is None
        assert people.people_with_address(connection, "owner@example.com") == []
        for name in (owner.account_id, "Smith & Sons Motors"):
            with pytest.raises(NotFound):
                people.find_account(connection, name)
    with pytest.raises(NotFound):
        send(parts, owner, tmp_path)


def test_nothing_personal_remains_in_the_records(parts: Parts, owner: Owner, tmp_path: Path) -> None:
    owner.press(Industry.AUTOMOTIVE)
    with parts.records.transaction() as connection:
        people.add_person(
            connection, owner.account_id, "annabel.smith@example.com", people.Role.AUDITOR, NOON, Random(5).randbytes
        )
        api_keys.create_key(connection, owner.account_id, owner.person_id, "Annabel, laptop", NOON, Random(7).randbytes)
        people.set_identity(connection, owner.person_id, "https://provider.example", "smith-1")
    set_up(parts, owner)
    send(parts, owner, tmp_path)
    words = ("smith", "annabel", "example.com", "vin1", "laptop", "bucket-of-ours", "hooks-of-ours")
    assert words_in(parts, words) == {*words} - {"vin1"}, "they were there before"
    close(parts, owner)
    assert words_in(parts, words) == set()
    with parts.records.reading() as connection:
        assert connection.execute(select(tables.people.c.signed_in_at).distinct()).all() == [(None,)]


def test_what_is_added_at_the_moment_of_the_closing_comes_too_late(parts: Parts, owner: Owner) -> None:
    """Whoever adds it was asked in a transaction before; the closing came in between."""
    account_id, person_id, draw = owner.account_id, owner.person_id, Random(9).randbytes
    close(parts, owner)
    late: tuple[Callable[[Connection], object], ...] = (
        lambda c: people.add_person(c, account_id, "annabel.smith@example.com", people.Role.OWNER, NOON, draw),
        lambda c: people.set_identity(c, person_id, "https://provider.example", "smith-1"),
        lambda c: api_keys.create_key(c, account_id, person_id, "Annabel, laptop", NOON, draw),
        lambda c: webhooks.add(c, account_id, "https://hooks-of-ours.net/x", NOON, draw),
        lambda c: allowed.allow(c, account_id, "s3://bucket-of-ours/in", NOON),
    )
    for add in late:
        with pytest.raises((NotFound, NotAllowed)), parts.records.transaction() as connection:
            add(connection)
    assert words_in(parts, ("smith", "laptop", "hooks-of-ours", "bucket-of-ours")) == set()


def test_who_signs_in_at_the_moment_of_the_closing_is_waited_for_and_signed_out(parts: Parts, owner: Owner) -> None:
    with parts.records.transaction() as connection:
        link = sessions.create_sign_in_link(connection, owner.person_id, NOON, Random(8).randbytes)
    with ThreadPoolExecutor(1) as other:
        with parts.records.transaction() as connection:
            sessions.redeem_sign_in_link(connection, link, NOON, Random(9).randbytes)
            closing = other.submit(close, parts, owner)
            while connection.dialect.name == "postgresql" and not somebody_waits(connection):
                pass
        closing.result()
    with parts.records.transaction() as connection:
        assert connection.execute(select(tables.sessions)).all() == []


def somebody_waits(connection: Connection) -> bool:
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    return connection.exec_driver_sql(waiting).first() is not None


def set_up(parts: Parts, owner: Owner) -> None:
    """Whatever else an account can have: a schedule with what it knows, a webhook with what it tells."""
    account = {"account_id": owner.account_id, "created_at": NOON}
    place = "s3://bucket-of-ours/in"
    with parts.records.transaction() as connection:
        connection.execute(insert(tables.account_places).values(url=place, **account))
        connection.execute(
            insert(tables.schedules).values(
                schedule_id="s1",
                cron="0 2 * * *",
                timezone="UTC",
                source=place,
                options={},
                overlap="skip",
                fingerprint_key="f" * 64,
                **account,
            )
        )
        connection.execute(insert(tables.fingerprints).values(schedule_id="s1", path_hmac="a", content_hmac="b"))
        webhook = {"webhook_id": "w1", "url": "https://hooks-of-ours.net/x", "secret": "s"}
        connection.execute(insert(tables.webhooks).values(**webhook, **account))
        connection.execute(
            insert(tables.webhook_events).values(
                event_id="e1", webhook_id="w1", kind="batch.completed", body={}, created_at=NOON
            )
        )
        connection.execute(
            insert(tables.idempotency_keys).values(key_sha256="k", request_sha256="r", answer={}, **account)
        )


def test_what_was_set_up_goes_too_and_nothing_runs_any_more(parts: Parts, owner: Owner) -> None:
    set_up(parts, owner)
    close(parts, owner)
    with parts.records.transaction() as connection:
        for table in (*ERASED, tables.fingerprints, tables.webhook_events):
            assert connection.execute(select(table)).all() == [], table.name


def test_a_night_that_is_going_is_over(parts: Parts, owner: Owner) -> None:
    set_up(parts, owner)
    with parts.records.transaction() as connection:
        schedule = schedules.find(connection, "s1")
        night = nights.begin(connection, schedule, NOON, NOON, Random(1).randbytes)
        ended = nights.begin(connection, schedule, later(1), NOON, Random(2).randbytes, NightState.COMPLETED)
    assert night is not None
    assert ended is not None
    close(parts, owner)
    with parts.records.reading() as connection:
        assert nights.find(connection, night.night_id).state is NightState.CANCELLED
        assert nights.find(connection, night.night_id).ended_at is not None
        assert nights.find(connection, ended.night_id) == ended


def test_every_table_of_accounts_is_either_erased_or_kept_on_purpose() -> None:
    of_accounts = {table.name for table in tables.metadata.tables.values() if "account_id" in table.c}
    assert of_accounts == {table.name for table in (*ERASED, *KEPT)}


def words_in(parts: Parts, words: tuple[str, ...]) -> set[str]:
    """Which of these stand in any row; on SQLite also anywhere in its files, freed pages and log included."""
    text = ""
    with parts.records.transaction() as connection:
        names = "SELECT name FROM sqlite_master WHERE type = 'table'"
        if connection.dialect.name == "postgresql":
            names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in connection.exec_driver_sql(names).all():
            text += str(connection.exec_driver_sql(f'SELECT * FROM "{table}"').all()).lower()
    if parts.records.engine.dialect.name == "sqlite":
        for path in parts.settings.home.glob("records.db*"):
            text += path.read_bytes().decode("latin-1").lower()
    return {word for word in words if word in text}


def test_closing_twice_changes_nothing(parts: Parts, owner: Owner, tmp_path: Path) -> None:
    owner.press(Industry.AUTOMOTIVE)
    send(parts, owner, tmp_path)
    close(parts, owner)
    with parts.records.transaction() as connection:
        closed_at = people.find_account_or_closed(connection, owner.account_id).closed_at
    again = close(parts, owner)
    assert (again.grants, again.receipts, again.waiting) == ((), (), 0)
    with parts.records.transaction() as connection:
        assert people.find_account_or_closed(connection, owner.account_id).closed_at == closed_at


def test_an_unknown_account_cannot_be_closed(parts: Parts, owner: Owner) -> None:
    by = Refusal("a" + "0" * 32, Method.OPERATOR, NOON, reason="asked by letter")  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        close_account(parts.settings, parts.records, parts.transient.objects, parts.clock, by)


def test_an_end_that_is_told_again_while_the_account_is_closed_makes_neither_fail(tmp_path: Path) -> None:
    parts = open_parts(at_home(tmp_path, records_url=current_database()), lambda: NOON)
    with parts.records.transaction() as connection:
        account_id, _ = people.create_account(connection, "Acme", "owner@acme.example", NOON, Random(7).randbytes)
        webhooks.add(connection, account_id, "https://acme.example/", NOON, Random(7).randbytes)
    batch_id = stamp_batch(parts, account_id, None, CutoutOptions()).batch_id
    ended: list[str] = []

    def call_off() -> None:
        with parts.records.transaction() as connection:
            calling_off.call_off(connection, batch_id, NOON)
        ended.append("called off")

    def meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE FROM webhook_events"):
            again.start()
            again.join(0.5)  # it comes as far as it can

    call_off()
    again = Thread(target=call_off)
    with parts.records.transaction() as connection:
        event.listen(connection, "after_cursor_execute", meanwhile)
        erase_account(connection, account_id, NOON)
    again.join(300)
    assert len(ended) == 2
    parts.records.engine.dispose()
