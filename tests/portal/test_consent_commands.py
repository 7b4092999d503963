"""bgbatch consent and bgbatch account, as an operator uses them. Nothing here can grant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from click.testing import Result
from sqlalchemy import text
from typer.main import Typer
from typer.testing import CliRunner

from consent import ledger
from consent.grants import Grants, grants_of
from consent.suppression import note, open_suppressions
from flows.parts import open_parts
from flows.receive import stamp_batch
from portal.cli import account, consent
from portal.cli.app import app as main_app
from schemas.clock import system_clock
from schemas.consent import Act, ConsentEvent, Method
from schemas.errors import NotAllowed
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.records.api_keys import create_key
from store.records.database import Records, open_records
from store.records.sessions import person_of_link
from store.settings import Settings
from tests.consent.conftest import NOON, Owner, new_owner
from tests.records import at_home

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BGBATCH_HOME", str(tmp_path / "home"))
    return at_home(tmp_path / "home")


@pytest.fixture
def records(settings: Settings) -> Iterator[Records]:
    records = open_records(settings)
    yield records
    records.engine.dispose()


@pytest.fixture
def owner(records: Records) -> Owner:
    return new_owner(records)


def run(app: Typer, *words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, list(words), input=answer)


def test_an_operator_withdraws_with_a_reason(settings: Settings, records: Records, owner: Owner) -> None:
    grants = owner.press(AUTO, STUDIO)
    done = run(consent.app, "withdraw", "Acme Motors", "--reason", "asked by letter", "--industry", "studio")
    assert done.exit_code == 0, done.output
    assert "studio" in done.output
    assert "automotive" not in done.output
    with records.transaction() as connection:
        assert ledger.live_grants(connection) == [grants[0]]
        event = ledger.read_events(connection)[-1]
    assert (event.actor, event.method, event.reason) == (None, Method.COMMAND_LINE, "asked by letter")
    assert open_suppressions(settings).files("grants") == [f"{grants[1].grant_id}.json"]
    again = run(consent.app, "withdraw", "Acme Motors", "--reason", "again", "--json")
    assert [each["grant_id"] for each in json.loads(again.stdout)["withdrawn"]] == [grants[0].grant_id]
    nothing = run(consent.app, "withdraw", "Acme Motors", "--reason", "again")
    assert (nothing.exit_code, "Nothing was on" in nothing.output) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        ("withdraw", "Acme Motors", "--reason", "  "),
        ("withdraw", "Acme Motors"),
        ("withdraw", "Nobody", "--reason", "x"),
        ("withdraw", "Acme Motors", "--reason", "x", "--industry", "aviation"),
        ("withdraw", "Acme Motors", "--reason", "x" * 501),
        ("show", "Nobody"),
        ("grant", "Acme Motors"),
    ],
)
def test_a_callers_mistake_changes_nothing_and_exits_with_2(
    records: Records, owner: Owner, words: tuple[str, ...]
) -> None:
    owner.press(AUTO)
    assert run(consent.app, *words).exit_code == 2
    with records.transaction() as connection:
        assert len(ledger.read_events(connection)) == 1


def test_show_tells_states_grants_and_history(records: Records, owner: Owner) -> None:
    (grant,) = owner.press(AUTO)
    shown = json.loads(run(consent.app, "show", "Acme Motors", "--json").stdout)
    assert shown["industries"]["automotive"] == "granted"
    assert shown["industries"]["studio"] == "never_asked"
    assert [each["grant_id"] for each in shown["grants"]] == [grant.grant_id]
    assert [each["act"] for each in shown["events"]] == [Act.GRANTED]
    assert "automotive" in run(consent.app, "show").output
    assert json.loads(run(consent.app, "show", "--json").stdout)[owner.account_id]["automotive"] == "granted"
    assert "never asked" in run(consent.app, "show", owner.account_id).output


def test_of_all_accounts_each_history_is_replayed_by_itself(
    records: Records, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2,000 accounts, who gave 20,000 grants in a year, the one table took over five minutes."""
    other = new_owner(records, "Other")
    owner.press(AUTO, STUDIO)
    other.press(STUDIO)
    replayed: list[set[str]] = []

    def noting(events: Sequence[ConsentEvent]) -> Grants:
        replayed.append({each.account_id for each in events})
        return grants_of(events)

    monkeypatch.setattr(consent, "grants_of", noting)
    told = json.loads(run(consent.app, "show", "--json").stdout)
    assert sorted(replayed, key=list) == sorted([{owner.account_id}, {other.account_id}], key=list)
    on = {each: {tag for tag, state in states.items() if state == "granted"} for each, states in told.items()}
    assert on == {owner.account_id: {AUTO, STUDIO}, other.account_id: {STUDIO}}


def test_a_programs_reason_moves_no_cursor_in_an_operators_window(records: Records, owner: Owner) -> None:
    owner.press(AUTO)
    by = ledger.Refusal(owner.account_id, Method.API, NOON, reason="\x1b[2J\x1b]0;all is well\x07 \x9b1A sold")
    with records.transaction() as connection:
        ledger.withdraw(connection, by, AUTO, NOON)
    told = run(consent.app, "show", "Acme Motors").output
    assert r"\x1b[2J\x1b]0;all is well\x07 \x9b1A sold" in told
    assert "\x1b" not in told


def test_verify_names_what_was_changed(records: Records, owner: Owner) -> None:
    owner.press(AUTO, STUDIO)
    assert json.loads(run(consent.app, "verify", "--json").stdout) == {"events": 2, "intact": True}
    with records.transaction() as connection:
        connection.execute(text("DROP TRIGGER consent_events_no_update"))
        connection.execute(text("UPDATE consent_events SET industry = 'pipeline' WHERE sequence = 2"))
    broken = run(consent.app, "verify")
    assert broken.exit_code == 1
    assert re.search(r"ledger_broken.*Event 2 .*was changed", broken.output.replace("\n", " "))


def test_verify_tells_a_cut_off_end_until_an_operator_has_looked(
    records: Records, settings: Settings, owner: Owner
) -> None:
    owner.press(AUTO, STUDIO)
    with records.transaction() as connection:
        note(connection, open_suppressions(settings))
        connection.execute(text("DROP TRIGGER consent_events_no_delete"))
        connection.execute(text("DELETE FROM consent_events WHERE sequence = 2"))
    cut = run(consent.app, "verify")
    assert (cut.exit_code, "Event 2" in cut.output) == (1, True)
    assert run(consent.app, "verify", "--restored").exit_code == 0
    assert run(consent.app, "verify").exit_code == 0


def test_an_account_is_created_with_a_link_that_works(records: Records, settings: Settings) -> None:
    made = json.loads(run(account.app, "create", "Bazaar", "--email", "b@x.example", "--json").stdout)
    token = made["sign_in"].rpartition("/")[2]
    with records.transaction() as connection:
        assert person_of_link(connection, token, system_clock())
    more = run(account.app, "add-person", "Bazaar", "--email", "c@x.example", "--role", "auditor", "--json")
    assert json.loads(more.stdout)["role"] == "auditor"
    link = json.loads(run(account.app, "link", "Bazaar", "--email", "C@x.example", "--json").stdout)
    assert link["account_id"] == made["account_id"]
    assert run(account.app, "add-person", "Bazaar", "--email", "d@x.example", "--role", "king").exit_code == 2
    assert run(account.app, "link", "Bazaar", "--email", "e@x.example").exit_code == 2
    assert run(account.app, "create", "Bazaar", "--email", "b@x.example").exit_code == 2
    assert "Bazaar" in run(account.app, "list").output


def test_who_leaves_the_company_leaves_the_account(records: Records, owner: Owner) -> None:
    run(account.app, "add-person", "Acme Motors", "--email", "ann@x.example", "--role", "owner")
    with records.transaction() as connection:
        create_key(connection, owner.account_id, owner.person_id, "nightly", NOON, Random(7).randbytes)
    assert run(account.app, "set-role", "Acme Motors", "ann@x.example", "king").exit_code == 2
    grants = owner.press(AUTO)
    gone = run(account.app, "remove-person", "Acme Motors", "owner@example.com", "--json")
    assert json.loads(gone.stdout) == {
        "account_id": owner.account_id,
        "role_before": "owner",
        "keys_of_theirs_in_use": 1,
    }
    with pytest.raises(NotAllowed):
        owner.press(STUDIO)
    with records.transaction() as connection:
        assert ledger.live_grants(connection) == grants, "the account gave it, and its ledger still verifies"
        ledger.verify(connection)
    assert run(account.app, "remove-person", "Acme Motors", "ann@x.example").exit_code == 2


def test_closing_asks_first(records: Records, owner: Owner) -> None:
    owner.press(AUTO)
    words = ("close", "Acme Motors", "--reason", "contract ended")
    for answer in ("n\n", ""):  # "": no terminal, as in a script
        asked = run(account.app, *words, answer=answer)
        assert (asked.exit_code, "add --yes" in asked.output, "Aborted" in asked.output) == (1, True, False)
    with records.transaction() as connection:
        assert len(ledger.live_grants(connection)) == 1
    closed = run(account.app, *words, "--yes", "--json")
    assert json.loads(closed.stdout)["grants_ended"] == 1
    with records.transaction() as connection:
        assert ledger.live_grants(connection) == []
    assert run(account.app, *words, "--yes").exit_code == 2, "there is no account of that name any more"
    assert "Acme" not in run(account.app, "list").output
    assert run(consent.app, "show", owner.account_id).exit_code == 0, "its history can still be shown by its id"


def test_a_batch_is_shown_with_its_permission_as_it_is_now(settings: Settings, records: Records, owner: Owner) -> None:
    parts = open_parts(settings, system_clock)
    owner.press(AUTO)
    given, other = (stamp_batch(parts, owner.account_id, tag, CutoutOptions()).batch_id for tag in (AUTO, STUDIO))

    def told(batch_id: str) -> str:
        return re.findall(r"may train models +(.+)", run(main_app, "status", batch_id).output)[0]

    assert (told(given), told(other)) == ("yes, as long as the account's grant lives", "no")
    run(consent.app, "withdraw", "Acme Motors", "--reason", "asked by letter")
    assert (told(given), told(other)) == ("no: the permission was taken back", "no")
