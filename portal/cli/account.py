"""account create|list|link|…|close: who there is, what they may, how they sign in, and how they leave."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from sqlalchemy import Connection

from consent.ledger import Refusal
from portal.cli.terminal import (
    OUR_FAULT,
    AsJson,
    TheAccount,
    TheReason,
    exit_codes,
    get_ready,
    show_fields,
    show_json,
    show_table,
    stores,
    tell,
)
from portal.closing import close_account
from schemas.consent import Method
from schemas.counting import so_many
from schemas.errors import UserError
from schemas.ids import AccountId
from store.purging import canary
from store.records import api_keys, people, sessions, shares
from store.records.early_purge import find_wish, set_wish

app = typer.Typer(no_args_is_help=True, help="Accounts and their sign-in links.")
AccountOrOnly = Annotated[str | None, typer.Option(help="Account name or id; may be left out when there is one.")]
"""What `account_or_only` is asked."""
_MAY = "owner may consent and manage, member may submit, auditor may read."


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A short name for the account, such as the dealer's.")],
    email: Annotated[str, typer.Option(help="The owner's e-mail address.")],
    as_json: AsJson = False,
) -> None:
    """Create an account with one owner, and print a sign-in link that works once."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            account_id, person_id = people.create_account(connection, name, email, parts.clock(), os.urandom)
            token = sessions.create_sign_in_link(connection, person_id, parts.clock(), os.urandom)
        _show_link(parts.settings.portal_url, token, {"account": name, "account id": account_id}, as_json)


@app.command()
def link(
    account: TheAccount,
    email: Annotated[str | None, typer.Option(help="Whose link. Without it: the first owner's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a new sign-in link for somebody in the account."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            found = people.find_account(connection, account)
            if email is None:
                person = people.owner_of(connection, found.account_id)
            else:
                person = people.person_of(connection, found.account_id, email)
            token = sessions.create_sign_in_link(connection, person.person_id, parts.clock(), os.urandom)
        _show_link(parts.settings.portal_url, token, {"account": found.name, "account id": found.account_id}, as_json)


@app.command("add-person")
def add_person(
    account: TheAccount,
    email: Annotated[str, typer.Option(help="The person's e-mail address.")],
    role: Annotated[str, typer.Option(help=_MAY)] = people.Role.MEMBER,
    as_json: AsJson = False,
) -> None:
    """Add a person to an account, and print a sign-in link that works once."""
    with exit_codes():
        wanted = _role(role)
        parts = get_ready()
        with parts.records.transaction() as connection:
            found = people.find_account(connection, account)
            now = parts.clock()
            person_id = people.add_person(connection, found.account_id, email, wanted, now, os.urandom)
            token = sessions.create_sign_in_link(connection, person_id, now, os.urandom)
        fields: dict[str, object] = {"account": found.name, "account id": found.account_id, "role": role}
        _show_link(parts.settings.portal_url, token, fields, as_json)


@app.command("set-role")
def set_role(
    account: TheAccount,
    email: Annotated[str, typer.Argument(help="The person's e-mail address.")],
    role: Annotated[str, typer.Argument(help=_MAY)],
    as_json: AsJson = False,
) -> None:
    """Change what a person may do. They are signed out everywhere, and sign in anew."""
    with exit_codes():
        wanted = _role(role)
        parts = get_ready()
        with parts.records.transaction() as connection:
            found = people.find_account(connection, account)
            before = people.set_role(connection, found.account_id, email, wanted)
        _show({"account id": found.account_id, "role": wanted, "role before": before.role}, as_json)


@app.command("remove-person")
def remove_person(
    account: TheAccount,
    email: Annotated[str, typer.Argument(help="The person's e-mail address.")],
    as_json: AsJson = False,
) -> None:
    """Take a person out of an account: signed out everywhere, every link dead, the address erased."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            found = people.find_account(connection, account)
            gone = people.remove_person(connection, found.account_id, email)
            keys = api_keys.list_keys(connection, found.account_id)
        made = sum(each.created_by == gone.person_id and each.revoked_at is None for each in keys)
        _show({"account id": found.account_id, "role before": gone.role, "keys of theirs in use": made}, as_json)


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the accounts."""
    with stores() as parts:
        with parts.records.reading() as connection:
            accounts = people.list_accounts(connection)
        if as_json:
            show_json([each.model_dump(mode="json") for each in accounts])
        else:
            rows = [
                (
                    "" if each.closed_at else each.name,
                    each.account_id,
                    f"{each.created_at:%Y-%m-%d}",
                    f"{each.closed_at:%Y-%m-%d}" if each.closed_at else "",
                )
                for each in accounts
            ]
            first = "`bgbatch account create NAME --email ADDRESS` makes the first."
            show_table(("account", "id", "since", "closed"), rows, first)


@app.command("purge")
def purge(
    account: TheAccount,
    on_download: Annotated[
        bool | None,
        typer.Option("--on-download/--not-on-download", help="Delete a finished batch once all of it was downloaded."),
    ] = None,
    after_hours: Annotated[
        float | None, typer.Option(help="Delete batches that come from now on after 0.5 to 23.5 hours; 0: as for all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how soon an account's batches are deleted, or have them deleted sooner than the setting for all says."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            found = people.find_account(connection, account)
            wish = find_wish(connection, found.account_id)
            if on_download is not None:
                wish = wish.model_copy(update={"on_download": on_download})
            if after_hours is not None:
                wish = wish.model_copy(update={"after_hours": after_hours or None})
            set_wish(connection, found.account_id, wish)
        if as_json:
            show_json(wish.model_dump(mode="json"))
        else:
            for_all = f"{so_many(parts.settings.purge_after_hours, 'hour')}, as for all"
            hours = for_all if wish.after_hours is None else so_many(wish.after_hours, "hour")
            show_fields({"deleted after": hours, "deleted once downloaded": "yes" if wish.on_download else "no"})


@app.command("limits")
def limits(
    account: TheAccount,
    weight: Annotated[
        float | None, typer.Option(help="How much of the workers it gets while others wait, too: 2 is twice as much.")
    ] = None,
    batches: Annotated[
        int | None, typer.Option(help="Batches that it may have open, waiting or running; 0: as for all.")
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Photos that it may have waiting or coming in; 0: as for all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much an account may send at once and what its turn weighs, or change it."""
    with stores() as parts:
        changed: dict[str, object] = {"weight": weight} if weight is not None else {}
        changed |= {"most_batches": batches or None} if batches is not None else {}
        changed |= {"most_items": items or None} if items is not None else {}
        with parts.records.transaction() as connection:
            account_id = people.find_account(connection, account).account_id
            share = shares.find_share(connection, account_id).model_copy(update=changed)
            if changed:
                shares.set_limits(connection, share)
        most_batches, most_items = share.limits(parts.settings)
        facts = {"weight": share.weight, "batches": most_batches, "items": most_items}
        if as_json:
            show_json(facts)
        else:
            show_fields({**facts, "weight": f"{share.weight:g}"})


@app.command("close")
def close(
    account: TheAccount,
    reason: TheReason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Close an account for good: every grant ends, all its batches are purged now, names and addresses are erased."""
    with exit_codes():
        if not reason.strip():
            raise UserError("Give a reason; it is kept with the withdrawal of the account's grants.")
        parts = get_ready()
        with parts.records.reading() as connection:
            found = people.find_account(connection, account)
        if not yes:
            try:
                typer.confirm(f"Close {found.name} for good? This cannot be taken back.", abort=True, err=True)
            except typer.Abort:  # also where nobody can be asked, as in a script
                tell("\nNothing was closed: nobody answered y. Where nobody is there to answer, add --yes.")
                raise typer.Exit(OUR_FAULT) from None
        by = Refusal(found.account_id, Method.OPERATOR, parts.clock(), reason=reason)
        closed = close_account(parts.settings, parts.records, parts.transient.objects, parts.clock, by)
        facts: dict[str, object] = {
            "account id": found.account_id,
            "grants ended": len(closed.grants),
            "batches purged": len(closed.receipts),
            "batches waiting for the next cleanup": closed.waiting,
        }
        _show(facts, as_json)


def _role(name: str) -> people.Role:
    if name not in set(people.Role):
        raise UserError(f"There is no role of that name. Choose one of: {', '.join(people.Role)}.")
    return people.Role(name)


def _show(facts: dict[str, object], as_json: bool) -> None:
    if as_json:
        show_json({name.replace(" ", "_"): value for name, value in facts.items()})
    else:
        show_fields(facts)


def _show_link(portal_url: str, token: str, fields: dict[str, object], as_json: bool) -> None:
    address = f"{portal_url}/sign-in/{token}"
    told = {"sign in": address} if as_json else {"sign in once at": address, "": "(while `bgbatch serve` runs)"}
    _show(fields | told, as_json)


def account_or_only(connection: Connection, named: str | None) -> AccountId:
    """The account of that name or id; without one the only one. Raises `UserError` where there are more, or none."""
    if named is not None:
        return people.find_account(connection, named).account_id
    # Our own canaries' account is nobody's: where `serve` runs it is always there.
    known = (each for each in people.list_accounts(connection) if each.account_id != canary.ACCOUNT)
    found = [each for each in known if each.closed_at is None]
    if not found:
        raise UserError("There is no account yet. `bgbatch account create NAME --email ADDRESS` makes the first.")
    if len(found) > 1:
        raise UserError("Say which account: --account NAME. `bgbatch account list` shows them.")
    return found[0].account_id
