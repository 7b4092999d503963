"""consent show|withdraw|verify. Nothing here can grant: only the button on the account page does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from sqlalchemy import Connection

from consent.grants import Grants, grants_of
from consent.ledger import LONGEST_REASON, Refusal, read_events, verify, withdraw
from consent.suppression import accept_end, check_end, note_soon, open_suppressions
from portal.cli.terminal import AsJson, TheAccount, TheReason, exit_codes, get_ready, say, show_json, show_table, stores
from schemas.consent import ConsentEvent, ConsentState, Grant, Method
from schemas.counting import so_many
from schemas.ids import AccountId
from schemas.industries import Industry, parse_industry
from schemas.naming import shown
from store.records.people import Account, find_account, find_account_or_closed, list_accounts

app = typer.Typer(no_args_is_help=True, help="Who allowed what. Granting is done on the account page alone.")


@app.command()
def show(
    account: Annotated[str | None, typer.Argument(help="Account name or id. Without it: all accounts.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an account allows, industry by industry, and its history; or what all accounts allow now."""
    with stores() as parts, parts.records.reading() as connection:
        if account is None:
            _show_all(connection, as_json)
        else:
            found = find_account_or_closed(connection, account)
            _show_one(found, read_events(connection, found.account_id), as_json)


@app.command("withdraw")
def take_back(
    account: TheAccount,
    reason: TheReason,
    industry: Annotated[
        list[str] | None, typer.Option(help=f"One of: {', '.join(Industry)}. Can be repeated. Without it: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take permissions back for an account. Readers are shut out at once; the next reconcile erases the files."""
    with exit_codes():
        chosen = tuple(dict.fromkeys(map(parse_industry, industry))) if industry else tuple(Industry)
        parts = get_ready()
        with parts.records.transaction() as connection:
            account_id = find_account(connection, account).account_id
            by = Refusal(account_id, Method.COMMAND_LINE, parts.clock(), reason=reason)
            ended = [withdraw(connection, by, each, parts.clock()) for each in chosen]
        note_soon(parts.records, open_suppressions(parts.settings))
        grants = [grant for grant in ended if grant is not None]
        if as_json:
            show_json({"withdrawn": [grant.model_dump(mode="json") for grant in grants]})
        elif grants:
            _show_grants(grants)
        else:
            say("Nothing was on, so nothing was changed.")


@app.command("verify")
def check(
    restored: Annotated[
        bool, typer.Option("--restored", help="A backup was restored: take the ledger's end for what it is now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check that no event of the ledger was changed, removed or re-ordered. Exit code 1 names the first that was."""
    with stores() as parts:
        beside = open_suppressions(parts.settings)
        with parts.records.reading() as connection:
            count = verify(connection)
            if restored:
                accept_end(connection, beside)
            check_end(connection, beside)
        if as_json:
            show_json({"events": count, "intact": True})
        else:
            say(f"{so_many(count, 'event')}, all in order and unchanged.")


def _show_all(connection: Connection, as_json: bool) -> None:
    of_account: dict[AccountId, list[ConsentEvent]] = {}
    for event in read_events(connection):
        of_account.setdefault(event.account_id, []).append(event)
    states = {}
    accounts = list_accounts(connection)
    for each in accounts:  # each by itself: in all grants of all accounts one's own would be looked for again and again
        states[each.account_id] = _states(grants_of(of_account.get(each.account_id, [])), each.account_id)
    if as_json:
        show_json(states)
        return
    rows = [(each.name, each.account_id, ", ".join(_on(states[each.account_id])) or "nothing") for each in accounts]
    show_table(("account", "id", "on for"), rows)


def _show_one(account: Account, events: list[ConsentEvent], as_json: bool) -> None:
    grants = grants_of(events)
    given, states = list(grants.by_id.values()), _states(grants, account.account_id)
    if as_json:
        show_json(
            {
                "account_id": account.account_id,
                "industries": states,
                "grants": [grant.model_dump(mode="json") for grant in given],
                "events": [event.model_dump(mode="json") for event in events],
            }
        )
        return
    show_table(("industry", "state"), [(tag, state.replace("_", " ")) for tag, state in states.items()])
    if given:
        _show_grants(given)
    if events:
        rows = [
            (
                event.sequence,
                f"{event.received_at:%Y-%m-%d %H:%M:%S}",
                event.act,
                event.industry,
                event.method.replace("_", " "),
                shown(event.reason, LONGEST_REASON),  # a program's words, too
            )
            for event in events
        ]
        show_table(("event", "received (UTC)", "act", "industry", "how", "reason"), rows)


def _show_grants(grants: list[Grant]) -> None:
    rows = [
        (
            grant.industry,
            grant.grant_id,
            f"{grant.granted_at:%Y-%m-%d %H:%M:%S}",
            f"{grant.withdrawn_at:%Y-%m-%d %H:%M:%S}" if grant.withdrawn_at else "",
        )
        for grant in grants
    ]
    show_table(("industry", "grant", "given (UTC)", "taken back (UTC)"), rows)


def _states(grants: Grants, account_id: AccountId) -> dict[str, str]:
    return {industry.value: grants.state(account_id, industry).value for industry in Industry}


def _on(states: Mapping[str, str]) -> list[str]:
    return [tag for tag, state in states.items() if state == ConsentState.GRANTED]
