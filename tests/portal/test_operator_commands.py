"""An operator's commands for what a customer may use: places of their own, and webhooks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Connection, QueuePool, create_engine, insert, select
from typer.testing import CliRunner

from consent import ledger
from flows.cleaning import cleaning
from lake.pulls import Pull, list_pulls
from portal.cli import upkeep
from portal.cli.app import app
from portal.cli.night_rounds import look_until
from schemas.clock import system_clock
from schemas.errors import StoreFault
from schemas.ids import BatchId
from schemas.industries import Industry
from store.purging.cleanup import clean_up
from store.records import webhooks
from store.records.attempts import Limit, wait_before_trying
from store.records.batches import hasten
from store.records.shares import Share, find_share, read_shares, set_limits
from store.records.tables import attempts, shares
from store.settings import Settings
from tests.api.conftest import Desk, jpeg
from tests.consent.conftest import later, new_owner
from tests.portal.commands import run

HOOK = "https://93.184.215.14/hook"  # a public address, which is checked and never called


def test_a_place_that_was_allowed_is_read_and_one_that_was_taken_back_is_not(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    (shop / "lot1").mkdir(parents=True)
    (shop / "lot1" / "1.jpg").write_bytes(jpeg())
    source = f"file://{shop}"
    assert desk.call("POST", "/batches", json={"source": source}).status_code == 403
    monkeypatch.chdir(shop.parent)
    assert source in run("place", "allow", "Acme", f"./../{shop.parent.name}/{shop.name}"), "which one that was"
    assert json.loads(run("place", "list", "Acme", "--json")) == [source]
    batch = desk.open(source=source)
    assert desk.call("GET", f"/batches/{batch}").json()["items"] == 1
    assert desk.call("POST", "/batches", "Bazaar", json={"source": source}).status_code == 403
    assert "no more" in run("place", "disallow", "Acme", str(shop))
    assert "nothing was changed" in run("place", "disallow", "Acme", str(shop))
    assert desk.call("POST", "/batches", json={"source": source}).status_code == 403


def test_an_operator_says_how_much_an_account_may_send_and_what_its_turn_weighs(desk: Desk) -> None:
    def shown(*words: str) -> dict[str, float]:
        return json.loads(run("account", "limits", "Acme", *words, "--json"))

    as_for_all = {"weight": 1.0, "batches": 200, "items": 500_000}
    assert shown() == as_for_all
    assert shown("--batches", "1") == {**as_for_all, "batches": 1}
    desk.open()
    assert desk.call("POST", "/batches", json={}).status_code == 429
    assert desk.call("POST", "/batches", "Bazaar", json={}).status_code == 201
    assert shown("--batches", "0", "--items", "7", "--weight", "2.5") == {"weight": 2.5, "batches": 200, "items": 7}
    desk.open()
    with desk.parts.records.reading() as connection:
        assert find_share(connection, desk.accounts["Acme"][0]).weight == 2.5


def test_setting_limits_leaves_what_the_account_has_had(desk: Desk) -> None:
    account = desk.accounts["Acme"][0]
    with desk.parts.records.transaction() as connection:
        connection.execute(insert(shares).values(account_id=account, finish_tag=47.5))
    run("account", "limits", "Acme", "--weight", "3")
    with desk.parts.records.reading() as connection:
        share = find_share(connection, account)
    assert (share.finish_tag, share.weight) == (47.5, 3.0)


@pytest.mark.parametrize(
    "wrong",
    ["--weight=0", "--weight=-1", "--weight=nan", "--weight=inf", "--batches=-1", "--items=-5", "--items=3000000000"],
)
def test_limits_that_cannot_be_are_refused_and_change_nothing(desk: Desk, wrong: str) -> None:
    assert "above 0" in run("account", "limits", "Acme", wrong, code=2)
    with desk.parts.records.reading() as connection:
        assert read_shares(connection, [desk.accounts["Acme"][0]]) == {}


def test_of_many_receipts_the_table_shows_the_last_and_json_lists_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them took gigabytes to lay out."""
    assert json.loads(run("receipts", "--json")) == []
    sent = [desk.send({"1.jpg": b"no photo"}) for _ in range(3)]
    with desk.parts.records.transaction() as connection:
        for each in sent:
            hasten(connection, BatchId(each), desk.parts.clock())
    clean_up(cleaning(desk.parts))
    assert [each["subject"] for each in json.loads(run("receipts", "--json"))] == sorted(sent)
    assert [each["subject"] for each in json.loads(run("receipts", sent[0], "--json"))] == sent[:1]
    monkeypatch.setattr("portal.cli.proofs._SHOWN", 2)
    done = CliRunner().invoke(app, ["receipts"])
    assert [each in done.stdout for each in sorted(sent)] == [False, True, True]
    assert "Not shown: 1 earlier receipt." in done.stderr
    assert sent[0] in run("receipts", sent[0])


def test_a_list_of_copies_keeps_nobody_from_writing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_beside_a_writer(connection: Connection) -> list[Pull]:
        with desk.parts.records.transaction() as other:
            set_limits(other, Share(account_id=desk.accounts["Acme"][0], weight=2.0))
        return list_pulls(connection)

    monkeypatch.setattr("portal.cli.lake.list_pulls", list_beside_a_writer)
    run("lake", "pulls")


def test_our_own_stores_are_no_place_whatever_was_allowed(desk: Desk, tmp_path: Path) -> None:
    run("place", "allow", "Acme", str(tmp_path))
    inside = f"file://{tmp_path}/home/transient"
    assert desk.call("POST", "/batches", json={"source": inside}).status_code == 403


def test_a_webhook_is_added_told_again_and_removed(desk: Desk) -> None:
    made = json.loads(run("webhook", "add", "Acme", HOOK, "--json"))
    assert made["secret"].startswith("whsec_")
    (listed,) = json.loads(run("webhook", "list", "Acme", "--json"))
    assert (listed["webhook_id"], "secret" in listed) == (made["webhook_id"], False)
    account = desk.accounts["Acme"][0]
    with desk.parts.records.transaction() as connection:
        webhooks.enqueue(connection, account, "ping", "one", {}, system_clock())
        ((event, _),) = webhooks.claim_due(connection, system_clock(), 10)
        webhooks.note_try(connection, event, 200, True, system_clock())
    (sent,) = json.loads(run("webhook", "events", "Acme", made["webhook_id"], "--json"))
    assert sent["delivered_at"]
    run("webhook", "replay", "Acme", made["webhook_id"], sent["event_id"])
    (again,) = json.loads(run("webhook", "events", "Acme", made["webhook_id"], "--json"))
    assert (again["delivered_at"], again["attempts"]) == (None, 0)
    run("webhook", "replay", "Bazaar", made["webhook_id"], sent["event_id"], code=2)
    run("webhook", "remove", "Acme", made["webhook_id"])
    assert json.loads(run("webhook", "list", "Acme", "--json")) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1/hook", "http://169.254.169.254/", "file:///etc/passwd"])
def test_a_webhook_to_the_inside_is_refused(desk: Desk, url: str) -> None:
    run("webhook", "add", "Acme", url, code=2)


def test_the_watch_over_the_nights_outlives_records_that_are_down(caplog: pytest.LogCaptureFixture) -> None:
    ending, looks = threading.Event(), []
    nobody_there = create_engine("postgresql+psycopg://x@127.0.0.1:1/x")

    def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            nobody_there.connect()
        if len(looks) == 2:
            raise StoreFault("The store does not answer.")
        ending.set()

    look_until(ending, look, pause=0)
    assert looks == [0, 1, 2]
    assert "OperationalError" in caplog.text
    assert "store_fault" in caplog.text
    assert "does not answer" not in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg://portal:5ecr:et/1@db:5432/bgbatch",
            "postgresql+psycopg://portal:**********@db:5432/bgbatch",
        ),
        (
            "postgresql+psycopg://db/bgbatch?user=x&password=5ecret&a=b",
            "postgresql+psycopg://db/bgbatch?user=x&password=**********&a=b",
        ),
        ("postgresql+psycopg://portal:5ecr@t&5ecr?t@db/bgbatch", "postgresql+psycopg://portal:**********@db/bgbatch"),
        ("postgresql+psycopg://portal@db:5432/bgbatch", "postgresql+psycopg://portal@db:5432/bgbatch"),
        ("postgresql+psycopg://db:5432/bgbatch", "postgresql+psycopg://db:5432/bgbatch"),
    ],
)
def test_settings_show_where_the_records_are_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    monkeypatch.setenv("BGBATCH_RECORDS_URL", url)
    for name in ("S3_SECRET", "SMTP_URL", "OIDC_CLIENT_SECRET"):
        monkeypatch.setenv(f"BGBATCH_{name}", "5ecret")
    said = run("settings")
    lines = dict(line.split(maxsplit=1) for line in said.splitlines() if " " in line.strip())
    assert lines["BGBATCH_RECORDS_URL"] == shown
    assert "5ecr" not in said


def test_settings_say_what_each_is_for_and_which_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGBATCH_PURGE_AFTER_HOUR", "2")
    said = CliRunner().invoke(app, ["settings"])
    lines = said.stdout.splitlines()
    assert lines[lines.index("BGBATCH_PURGE_AFTER_HOURS   23.0") + 1].strip().startswith("Hours from receipt to purge")
    assert said.stderr == "There are no such settings: BGBATCH_PURGE_AFTER_HOUR.\n"
    assert said.exit_code == 0


def test_a_setting_that_is_empty_is_none_as_their_descriptions_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BGBATCH_HOME", raising=False)
    usual = Settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"BGBATCH_{name.upper()}", "")
    assert Settings() == usual
    assert Settings().home.is_absolute()


def test_settings_that_do_not_go_together_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BGBATCH_LAKE_URL", str(tmp_path / "lake"))
    monkeypatch.setenv("BGBATCH_SUPPRESSIONS_URL", str(tmp_path / "lake" / "suppressions"))
    said = " ".join(run("settings", code=2).split())
    assert "A setting cannot be used. The suppressions must not lie inside the lake" in said


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps", "CPU "])
def test_a_device_that_cannot_be_is_refused_by_every_command(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("BGBATCH_DEVICE", device)
    assert "BGBATCH_DEVICE: Choose cpu, cuda or cuda:N." in " ".join(run("status", code=2).split())


def test_the_version_is_told() -> None:
    assert run("--version").split() == ["bgbatch", version("bgbatch")]


def test_upkeep_forgets_what_has_expired(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = threading.Event()

    def only_forget(what: str, step: Callable[[], object]) -> object:
        if what == "start":
            return desk.parts
        if what != "forget":
            return None
        ending.set()
        return step()

    for name, instead in {
        "until_stopped": lambda: ending,
        "settings_to_clean": lambda: None,
        "_try": only_forget,
    }.items():
        monkeypatch.setattr(upkeep, name, instead)
    with desk.parts.records.transaction() as connection:
        wait_before_trying(connection, Limit("links", 1, timedelta()), "ann@example.com", desk.parts.clock())
    upkeep.upkeep(compact_at="")
    pool = desk.parts.records.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 0, (
        "a server that hangs answers on no connection from before, and no cleanup would follow"
    )
    with desk.parts.records.reading() as connection:
        assert connection.execute(select(attempts)).all() == []


def test_upkeep_goes_on_by_a_clock_that_was_ahead_and_is_set_right_during_a_cleanup(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a machine that starts with a wrong clock: it slept until the time that the clock had shown."""
    right = datetime(2026, 11, 27, tzinfo=UTC)
    now, done, waited, merged = [right + timedelta(hours=26)], [], [], []

    def pretend(what: str, _: Callable[[], object]) -> object:
        if not done:
            now[0] = right
        done.append(what)
        return desk.parts if what == "start" else what

    def merge(_: str, last: datetime, *_what: object) -> datetime:
        merged.append(last - now[0])
        return last

    class Ending(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout)
            now[0] += timedelta(seconds=timeout or 0.0)
            return len(waited) > 299 and not self.set()

    for name, instead in {
        "until_stopped": Ending,
        "settings_to_clean": lambda: None,
        "system_clock": lambda: now[0],
        "_try": pretend,
        "_compact_if_due": merge,
    }.items():
        monkeypatch.setattr(upkeep, name, instead)
    upkeep.upkeep()
    assert (set(waited), done.count("cleanup")) == ({20.0}, 10)
    assert done.count("canary") == 1
    assert max(merged[1:]) <= timedelta()


def test_upkeep_erases_what_was_taken_back_without_waiting_for_its_ten_minutes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = desk.parts.records
    owner = new_owner(records)
    owner.press(Industry.AUTOMOTIVE)
    rests: list[float] = []
    reconciled_after: list[int] = []

    def pretend(what: str, _: Callable[[], object]) -> object:
        if what == "reconcile":
            reconciled_after.append(len(rests))
        return desk.parts if what == "start" else what

    class Ending(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            rests.append(timeout or 0.0)
            if len(rests) == 3:
                with records.transaction() as connection:
                    ledger.withdraw_all(connection, owner.refusal(later(1)), later(1))
            return len(rests) > 10 and not self.set()

    for name, instead in {"until_stopped": Ending, "settings_to_clean": lambda: None, "_try": pretend}.items():
        monkeypatch.setattr(upkeep, name, instead)
    upkeep.upkeep(compact_at="")
    assert reconciled_after == [0, 3]


def test_upkeep_cleans_up_every_ten_minutes_also_while_the_records_hang_at_each_look_for_a_withdrawal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, cleaned_at, waits = [datetime(2026, 11, 27, tzinfo=UTC)], [], [0]

    def pretend(what: str, _: Callable[[], object]) -> object:
        if what == "cleanup":
            cleaned_at.append(now[0])
        return desk.parts if what == "start" else what

    def hang(_: object) -> int:
        now[0] += timedelta(seconds=20)  # ten for a connection, ten for a table that is locked
        return 0

    class Ending(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            now[0] += timedelta(seconds=timeout or 0.0)
            waits[0] += 1
            return waits[0] > 99 and not self.set()

    for name, instead in {
        "until_stopped": Ending,
        "settings_to_clean": lambda: None,
        "system_clock": lambda: now[0],
        "_try": pretend,
        "_newest_withdrawal": hang,
    }.items():
        monkeypatch.setattr(upkeep, name, instead)
    upkeep.upkeep(compact_at="")
    assert max(after - before for before, after in pairwise(cleaned_at)) <= timedelta(minutes=11)


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("receipts",), "portal.cli.proofs.verify_receipts"),
        (("audit",), "portal.audit.verify_receipts"),
        (("consent", "verify"), "portal.cli.consent.verify"),
    ],
)
def test_nobody_waits_while_a_whole_chain_is_verified(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], step: str
) -> None:
    wrote: list[str] = []

    def verify(_: object) -> int:
        with desk.parts.records.transaction():
            wrote.append(step)
        return 0

    monkeypatch.setattr(step, verify)
    run(*words)
    assert wrote == [step]


def test_schedules_can_be_told_apart_by_what_they_read(desk: Desk, tmp_path: Path) -> None:
    for name in ("spring", "autumn"):
        (tmp_path / name).mkdir()
        places = ("--source", str(tmp_path / name), "--deliver", str(tmp_path / f"cutouts-{name}"))
        shown = run("schedule", "add", "--cron", "0 2 * * *", "--account", "Acme", *places)
        assert "deadline minutes  none" in shown
    listed = run("schedule", "list")
    assert [f"file://{tmp_path / name}" in listed for name in ("spring", "autumn")] == [True, True]


def test_a_port_that_is_taken_is_told_before_anything_is_started(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run("serve", "--port", str(port), code=2)
    assert said.startswith(f"bad_request: The portal cannot listen on 127.0.0.1, port {port}: Address already in use.")
    assert "The portal is at" not in said


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "BGBATCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}["nobody"])
    assert run("status", code=2).startswith("bad_request: The user of this process has no home. Name a folder")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("schedule", "list"), "`bgbatch schedule add`"),
        (("place", "list", "Acme"), "`bgbatch place allow ACCOUNT"),
        (("webhook", "list", "Acme"), "`bgbatch webhook add ACCOUNT"),
        (("receipts",), "A receipt is written when"),
        (("lake", "pulls"), "Nobody has pulled a copy."),
        (("lake", "stats", "--sheet", "look.png"), "No candidate has a live permission"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_an_empty_list_says_how_its_first_comes(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, list(words))
    assert (done.exit_code, done.stdout) == (0, "There is none.\n")
    assert done.stderr.startswith(hint)
    assert done.stderr.count("\n") == 1
    assert not Path("look.png").exists()


def test_a_misspelt_id_does_not_pass_for_a_batch_of_which_nothing_was_deleted_yet(desk: Desk) -> None:
    batch_id = desk.open()
    assert run("receipts", batch_id).startswith("There is none.")
    assert run("receipts", batch_id[:-1], code=2).startswith(f"not_found: There is no batch {batch_id[:-1]}.")
    grant_id = "g" + "0" * 32
    assert run("receipts", grant_id, code=2).startswith(f"not_found: There is no grant {grant_id}.")


def test_scripts_read_the_settings_without_their_secrets(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGBATCH_S3_SECRET", "very secret")
    shown = run("settings", "--json")
    assert "very secret" not in shown
    assert json.loads(shown)["BGBATCH_PURGE_AFTER_HOURS"] == 23
    assert [f"BGBATCH_{name.upper()}" for name in Settings.model_fields] == list(json.loads(shown))


def test_scripts_read_the_audit_by_plain_names_and_its_times_as_all_others(desk: Desk) -> None:
    told = json.loads(run("audit", "--json"))
    assert told["until"][10:] == told["until"][10:].replace(" ", "T").replace("+00:00", "Z")
    assert {"consent_events_of_all_time", "rows_in_the_lake"} <= set(told["looked_at"])


def test_who_asks_when_batches_go_reads_hours(desk: Desk) -> None:
    assert "23 hours, as for all" in run("account", "purge", "Acme")
