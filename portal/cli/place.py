"""place allow|list|disallow: which buckets and folders of their own accounts may name, over REST and in schedules."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from portal.cli.terminal import AsJson, TheAccount, say, show_json, show_table, stores
from schemas.errors import UserError
from store.outside import allowed
from store.records.people import find_account

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
app = typer.Typer(no_args_is_help=True, help="Places of a customer's own: photos are read there, cutouts put there.")
Place = Annotated[str, typer.Argument(help="s3://bucket/prefix or a folder; all below it is meant, too.")]


@app.command()
def allow(account: TheAccount, place: Place) -> None:
    """Let an account name this place. Our keys open it, so be sure that it is theirs."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            allowed.allow(connection, find_account(connection, account).account_id, address_of(place), parts.clock())
        say(f"It may be named now: {allowed.normal_place(address_of(place))}, and all below it.", highlight=False)


@app.command("list")
def list_all(account: TheAccount, as_json: AsJson = False) -> None:
    """List the places that an account may name."""
    with stores() as parts:
        with parts.records.reading() as connection:
            found = allowed.places_of(connection, find_account(connection, account).account_id)
        if as_json:
            show_json(found)
        else:
            first = "`bgbatch place allow ACCOUNT s3://bucket/prefix` allows the first."
            show_table(("place",), [(each,) for each in found], first)


@app.command()
def disallow(account: TheAccount, place: Place) -> None:
    """Take a place back. Schedules that name it fail from then on, and batches with photos there are called off.

    One that is being worked on reads on there until its turn ends: `bgbatch cancel BATCH` stops it.
    """
    with stores() as parts:
        with parts.records.transaction() as connection:
            was_allowed = allowed.disallow(connection, find_account(connection, account).account_id, address_of(place))
        say("It may be named no more." if was_allowed else "It was not allowed; nothing was changed.")


def require_known(text: str) -> None:
    """Raises `UserError` for `gs://…`, `s3:/…` or `~/…`: a folder of that name would be made here, and taken for it."""
    if text.partition("/")[0] == "~":  # `--to=~/cutouts`
        raise UserError("The shell left `~` as it is. Write the whole path of your home, or $HOME.")
    if _SCHEME.match(text) and not text.startswith(allowed.IN_PLACE):
        raise UserError("That is no place that bgbatch can use: give s3://bucket/prefix, or a folder.")


def address_of(text: str) -> str:
    """A place's address; a folder may be given as a path. Raises `UserError`."""
    require_known(text)
    return text if "://" in text else f"file://{os.path.abspath(text)}"
