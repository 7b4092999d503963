"""Webhooks on a real HTTP server: signed, tried again, replayed, and never sent to a private address."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select

from portal import webhooks as telling
from schemas.clock import system_clock
from schemas.errors import AlreadyExists, LineTooLong, NotFound, UnsafeAddress, UserError
from schemas.ids import AccountId
from store.outside.fetch import Fetcher, FetchLimits
from store.records import tables, webhooks
from store.records.closing import erase_account
from store.records.database import Records, open_records
from store.records.people import create_account
from store.records.webhooks import PAUSES, Webhook
from tests.consent.postgres import current_database
from tests.portal.commands import run
from tests.records import at_home

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Receiver:
    """The customer's server. `answers`: statuses to give, the last one again and again."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [200])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = made.answers.pop(0) if len(made.answers) > 1 else made.answers[0]
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status == 302:
                self.send_header("Location", made.url + "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://hooks.bazaar.example:{server.server_port}/bgbatch?tenant=1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Outbox:
    """The records, a clock, and calls that may reach this test's server alone."""

    records: Records
    account_id: AccountId
    now: datetime = NOON
    addresses: tuple[str, ...] = ("127.0.0.1",)

    @property
    def fetcher(self) -> Fetcher:
        limits = FetchLimits(bytes=1000, seconds=60, redirects=0)
        return Fetcher(limits, guard=lambda ip: ip == "127.0.0.1", resolve=lambda host, port: self.addresses)

    def add(self, url: str) -> Webhook:
        return telling.add(self.records, self.account_id, url, self.now, os.urandom, self.fetcher)

    def tell(self, subject: str = "n1", **body: object) -> int:
        with self.records.transaction() as connection:
            return webhooks.enqueue(connection, self.account_id, "night.ended", subject, body, self.now)

    def send(self, wait: timedelta = timedelta()) -> int:
        self.now += wait
        return telling.send_due(self.records, lambda: self.now, self.fetcher)

    def events(self, hook: Webhook) -> list[webhooks.Event]:
        with self.records.transaction() as connection:
            return webhooks.events_of(connection, hook.webhook_id)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    records = open_records(at_home(tmp_path / "home"))
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", NOON, os.urandom)
    yield Outbox(records, account_id)
    records.engine.dispose()


def test_a_look_by_cron_sends_what_waits(
    outbox: Outbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BGBATCH_HOME", str(tmp_path / "home"))
    outbox.now = system_clock()
    hook = outbox.add(receiver.url)
    outbox.tell()
    monkeypatch.setattr(telling, "default_fetcher", lambda: outbox.fetcher)
    run("schedule", "run-due")
    assert len(receiver.got) == 1
    (event,) = outbox.events(hook)
    assert event.delivered_at is not None


def test_a_message_is_signed_with_its_id_its_time_and_its_body(outbox: Outbox, receiver: Receiver) -> None:
    hook = outbox.add(receiver.url)
    outbox.tell(new=3)
    assert outbox.send() == 1
    ((headers, body),) = receiver.got
    assert body == b'{"data":{"new":3},"timestamp":"2026-11-25T12:00:00+00:00","type":"night.ended"}'
    assert headers["content-type"] == "application/json"
    assert int(headers["webhook-timestamp"]) == int(outbox.now.timestamp())
    signed = telling.sign(hook.secret, headers["webhook-id"], outbox.now, body)
    assert headers["webhook-signature"] == signed
    others = (
        telling.sign("whsec_" + "A" * 44, headers["webhook-id"], outbox.now, body),
        telling.sign(hook.secret, "e0", outbox.now, body),
        telling.sign(hook.secret, headers["webhook-id"], outbox.now + timedelta(seconds=1), body),
        telling.sign(hook.secret, headers["webhook-id"], outbox.now, body.replace(b"3", b"4")),
    )
    assert signed not in others


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of standardwebhooks.com's specification, worked out with `openssl dgst -sha256 -mac HMAC`."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    moment = datetime.fromtimestamp(1614265330, UTC)
    signature = telling.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", moment, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_does_not_arrive_is_tried_again_with_growing_pauses_and_then_no_more(
    outbox: Outbox, receiver: Receiver
) -> None:
    hook = outbox.add(receiver.url)
    receiver.answers = [500]
    outbox.tell()
    assert outbox.send() == 0
    for pause in PAUSES:
        assert outbox.send(pause - timedelta(seconds=1)) == 0
        before = len(receiver.got)
        outbox.send(timedelta(seconds=1))
        assert len(receiver.got) == before + 1
    (event,) = outbox.events(hook)
    assert (event.attempts, event.next_try_at, event.last_status) == (len(PAUSES) + 1, None, 500)
    outbox.send(timedelta(days=2))
    assert len(receiver.got) == len(PAUSES) + 1
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1, "a receiver can tell a repetition"
    with outbox.records.transaction() as connection:
        assert webhooks.replay(connection, hook.webhook_id, event.event_id, outbox.now).attempts == 0
    assert outbox.send() == outbox.send(PAUSES[0]) == 0
    assert len(receiver.got) == len(PAUSES) + 3, "all over again"
    assert list(PAUSES) == sorted(PAUSES)
    assert timedelta(days=1) < sum(PAUSES, timedelta()) < timedelta(days=1.5)


def test_what_arrived_is_not_sent_again_unless_it_is_replayed(outbox: Outbox, receiver: Receiver) -> None:
    hook = outbox.add(receiver.url)
    receiver.answers = [503, 204]
    outbox.tell()
    assert outbox.send() == 0
    assert outbox.send(PAUSES[0]) == 1
    assert outbox.send(timedelta(days=1)) == 0
    assert outbox.tell() == 0, "the same thing is told once"
    (event,) = outbox.events(hook)
    with outbox.records.transaction() as connection:
        webhooks.replay(connection, hook.webhook_id, event.event_id, outbox.now)
    assert outbox.send() == 1
    assert len(receiver.got) == 3


def test_what_came_of_one_message_is_noted_of_no_other(outbox: Outbox, receiver: Receiver) -> None:
    hook = outbox.add(receiver.url)
    receiver.answers = [200, 500]
    for subject in ("n1", "n2"):
        outbox.tell(subject)
    assert outbox.send() == 1
    noted = {event.last_status: (event.delivered_at, event.next_try_at) for event in outbox.events(hook)}
    assert noted == {200: (outbox.now, None), 500: (None, outbox.now + PAUSES[0])}
    receiver.answers = [200]
    assert outbox.send(PAUSES[0]) == 1


def test_what_was_told_can_be_told_again_for_thirty_days_and_then_is_forgotten(
    outbox: Outbox, receiver: Receiver
) -> None:
    hook = outbox.add(receiver.url)
    outbox.tell()
    assert outbox.send() == 1
    assert outbox.send(timedelta(days=30, seconds=-1)) == 0
    (event,) = outbox.events(hook)
    with outbox.records.transaction() as connection:
        webhooks.replay(connection, hook.webhook_id, event.event_id, outbox.now)
    assert outbox.send() == 1
    assert outbox.send(timedelta(seconds=1)) == 0
    assert outbox.events(hook) == []


@pytest.mark.parametrize("status", [300, 302])
def test_a_redirect_is_not_followed_and_has_taken_nothing(outbox: Outbox, receiver: Receiver, status: int) -> None:
    outbox.add(receiver.url)
    receiver.answers = [status]
    outbox.tell()
    assert outbox.send() == 0
    assert len(receiver.got) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "http://169.254.169.254/latest", "http://[::1]/", "ftp://a/b"])
def test_a_private_address_is_refused_when_it_is_added(outbox: Outbox, url: str) -> None:
    with pytest.raises(UnsafeAddress):
        telling.add(outbox.records, outbox.account_id, url, NOON, os.urandom, telling.default_fetcher())


def test_names_that_nobody_answers_for_keep_no_more_than_four_threads(outbox: Outbox) -> None:
    """A portal has 40: one customer with forty such names left nobody else an answer for 15 s."""
    asked, answer = threading.Semaphore(0), threading.Event()

    def silent(host: str, port: int) -> tuple[str, ...]:
        asked.release()
        assert answer.wait(60)
        return ("127.0.0.1",)

    def add(number: int) -> Webhook:
        fetcher = Fetcher(FetchLimits(bytes=1000, seconds=60), guard=lambda ip: True, resolve=silent)
        url = f"https://{number}.bazaar.example/"
        return telling.add(outbox.records, outbox.account_id, url, NOON, os.urandom, fetcher)

    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(add, number) for number in range(4)]
        for _ in range(4):
            assert asked.acquire(timeout=60)
        try:
            with pytest.raises(LineTooLong) as refused:
                outbox.add("https://one-more.bazaar.example/")
        finally:
            answer.set()
        assert refused.value.retry_after == 5
        assert len({each.result().webhook_id for each in waiting}) == 4
    outbox.add("https://one-more.bazaar.example/")


def test_a_name_that_turns_private_later_is_not_called(outbox: Outbox, receiver: Receiver) -> None:
    hook = outbox.add(receiver.url)
    outbox.tell()
    outbox.addresses = ("10.0.0.7", "127.0.0.1")
    assert outbox.send() == 0
    assert receiver.got == []
    assert outbox.events(hook)[0].last_status is None


def test_an_address_that_says_it_is_gone_is_forgotten(outbox: Outbox, receiver: Receiver) -> None:
    hook = outbox.add(receiver.url)
    receiver.answers = [410]
    outbox.tell()
    outbox.send()
    with outbox.records.transaction() as connection:
        assert webhooks.list_all(connection, outbox.account_id) == []
    assert outbox.events(hook) == []
    assert outbox.tell("n2") == 0


def test_a_sender_that_died_has_its_message_sent_by_another(outbox: Outbox, receiver: Receiver) -> None:
    outbox.add(receiver.url)
    outbox.tell()
    with outbox.records.transaction() as connection:
        assert len(webhooks.claim_due(connection, outbox.now, 10)) == 1
    assert outbox.send(timedelta(minutes=4)) == 0, "somebody has it: a round may take two minutes"
    assert outbox.send(timedelta(minutes=1)) == 1


def test_an_account_with_many_messages_holds_nobody_elses_up(outbox: Outbox, receiver: Receiver) -> None:
    for number in range(2):
        outbox.add(f"{receiver.url}&at={number}")
    for number in range(70):
        outbox.tell(f"n{number}")
    with outbox.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
    theirs = Outbox(outbox.records, account_id, NOON + timedelta(seconds=1))
    hook = theirs.add(receiver.url)
    theirs.tell("last")
    assert 1 < theirs.send() < 20, "a few of each account in a round"
    assert theirs.events(hook)[0].delivered_at


def test_an_account_may_have_twenty_webhooks(outbox: Outbox, receiver: Receiver) -> None:
    hooks = [outbox.add(f"{receiver.url}&at={number}") for number in range(20)]
    with pytest.raises(UserError, match="20 webhooks"):
        outbox.add(receiver.url)
    with outbox.records.transaction() as connection:
        webhooks.end(connection, hooks[0].webhook_id, NOON)
    outbox.add(receiver.url)


def test_of_one_address_that_is_added_twice_at_once_there_is_one_webhook(tmp_path: Path) -> None:
    records = open_records(at_home(tmp_path, records_url=current_database()))

    def add() -> Webhook:
        with records.transaction() as connection:
            return webhooks.add(connection, account_id, "https://acme.example/", NOON, os.urandom)

    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
    with ThreadPoolExecutor(1) as pool:
        with records.transaction() as connection:
            webhooks.add(connection, account_id, "https://acme.example/", NOON, os.urandom)
            other = pool.submit(add)
            assert wait([other], timeout=0.5).not_done, "it waits for the first"
        with pytest.raises(AlreadyExists):
            other.result(30)
    records.engine.dispose()


def test_what_is_done_to_one_webhook_is_done_to_no_other(outbox: Outbox, receiver: Receiver) -> None:
    one, other = outbox.add(receiver.url), outbox.add(f"{receiver.url}&at=2")
    outbox.tell()
    with outbox.records.transaction() as connection:
        for _ in range(webhooks.MOST_PINGS):
            webhooks.ping(connection, one, NOON, os.urandom)
        webhooks.ping(connection, other, NOON + timedelta(minutes=1), os.urandom)
        webhooks.end(connection, one.webhook_id, NOON)
    assert [each.kind for each in outbox.events(other)] == ["ping", "night.ended"], "the newest first"
    assert outbox.events(one) == []
    with outbox.records.transaction() as connection:
        assert webhooks.list_all(connection, outbox.account_id) == [other]
        kept = select(tables.webhooks.c.secret, tables.webhooks.c.url).where(
            tables.webhooks.c.webhook_id == one.webhook_id
        )
        assert connection.execute(kept).one() == ("", ""), "its secret and its address are forgotten"
        (newest, *_) = webhooks.events_of(connection, other.webhook_id)
        assert webhooks.replay(connection, other.webhook_id, newest.event_id, outbox.now).event_id == newest.event_id
        with pytest.raises(NotFound):
            webhooks.replay(connection, one.webhook_id, newest.event_id, outbox.now)


def test_of_two_senders_that_look_at_once_one_has_the_message(tmp_path: Path) -> None:
    records = open_records(at_home(tmp_path, records_url=current_database()))

    def claim() -> int:
        with records.transaction() as connection:
            return len(webhooks.claim_due(connection, NOON, 10))

    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
        hook = webhooks.add(connection, account_id, "https://acme.example/", NOON, os.urandom)
        webhooks.ping(connection, hook, NOON, os.urandom)
    with ThreadPoolExecutor(1) as pool:
        with records.transaction() as connection:
            assert len(webhooks.claim_due(connection, NOON, 10)) == 1
            other = pool.submit(claim)
            assert wait([other], timeout=0.5).not_done, "it waits for what the first makes of it"
        assert other.result(30) == 0
    records.engine.dispose()


def test_ten_pings_may_wait_for_an_address(outbox: Outbox, receiver: Receiver) -> None:
    hook = outbox.add(receiver.url)

    def ping() -> None:
        with outbox.records.transaction() as connection:
            webhooks.ping(connection, hook, outbox.now, os.urandom)

    for _ in range(webhooks.MOST_PINGS):
        ping()
    with pytest.raises(LineTooLong):
        ping()
    while outbox.send():
        pass
    ping()


@contextmanager
def closed_meanwhile(records: Records, account_id: AccountId, after: str) -> Iterator[Connection]:
    """A transaction beside which the account is closed, from its first statement on that begins so."""
    ended: list[str] = []

    def close() -> None:
        with records.transaction() as connection:
            erase_account(connection, account_id, NOON)
        ended.append("closed")

    closing = threading.Thread(target=close)

    def meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(after) and closing.ident is None:
            closing.start()
            closing.join(0.5)  # it comes as far as it can

    with records.transaction() as connection:
        event.listen(connection, "after_cursor_execute", meanwhile)
        yield connection
    closing.join(300)
    assert ended == ["closed"]
    records.engine.dispose()


def test_an_address_that_wants_no_more_while_its_account_is_closed_makes_neither_fail(tmp_path: Path) -> None:
    records = open_records(at_home(tmp_path, records_url=current_database()))
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
        webhook = webhooks.add(connection, account_id, "https://acme.example/", NOON, os.urandom)
        webhooks.ping(connection, webhook, NOON, os.urandom)
    with closed_meanwhile(records, account_id, after="") as connection:
        webhooks.end(connection, webhook.webhook_id, NOON)


def test_events_that_are_claimed_while_their_account_is_closed_make_neither_fail(tmp_path: Path) -> None:
    records = open_records(at_home(tmp_path, records_url=current_database()))
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
        webhook = webhooks.add(connection, account_id, "https://acme.example/", NOON, os.urandom)
        for minutes in (2, 1):  # they lie in another order than they are claimed in
            webhooks.ping(connection, webhook, NOON + timedelta(minutes=minutes), os.urandom)
    with closed_meanwhile(records, account_id, after="UPDATE webhook_events") as connection:
        assert len(webhooks.claim_due(connection, NOON + timedelta(hours=1), 10)) == 2
