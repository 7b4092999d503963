"""webhook add|list|events|replay|remove: where an account is told, for operators who set it up for a customer."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from sqlalchemy import Connection

from portal import webhooks as telling
from portal.cli.terminal import AsJson, TheAccount, show_fields, show_json, show_table, stores
from store.records import webhooks
from store.records.people import find_account
from store.records.webhooks import Webhook

app = typer.Typer(no_args_is_help=True, help="Addresses that are told when batches and nights end.")
Id = Annotated[str, typer.Argument(help="Webhook id, as `bgbatch webhook list` shows it.")]


@app.command()
def add(
    account: TheAccount, url: Annotated[str, typer.Argument(help="A public address.")], as_json: AsJson = False
) -> None:
    """Add an address, and show the secret that verifies its messages: now, and never again."""
    with stores() as parts:
        with parts.records.reading() as connection:
            account_id = find_account(connection, account).account_id
        made = telling.add(parts.records, account_id, url, parts.clock(), os.urandom, telling.default_fetcher())
        fields = {"webhook_id": made.webhook_id, "url": made.url, "secret": made.secret}
        if as_json:
            show_json(fields)
        else:
            show_fields(fields)


@app.command("list")
def list_all(account: TheAccount, as_json: AsJson = False) -> None:
    """List an account's webhooks."""
    with stores() as parts:
        with parts.records.reading() as connection:
            found = webhooks.list_all(connection, find_account(connection, account).account_id)
        if as_json:
            show_json([each.model_dump(mode="json", exclude={"secret"}) for each in found])
        else:
            rows = [(each.webhook_id, each.url, f"{each.created_at:%Y-%m-%d %H:%M}") for each in found]
            first = "`bgbatch webhook add ACCOUNT ADDRESS` adds the first."
            show_table(("webhook", "address", "since (UTC)"), rows, first)


@app.command()
def events(account: TheAccount, webhook: Id, as_json: AsJson = False) -> None:
    """List the last 100 messages and how they fared."""
    with stores() as parts:
        with parts.records.reading() as connection:
            found = webhooks.events_of(connection, _own(connection, account, webhook).webhook_id)
        if as_json:
            show_json([each.model_dump(mode="json") for each in found])
            return
        rows = [
            (
                each.event_id,
                each.kind,
                each.attempts,
                each.last_status,
                f"{at:%Y-%m-%d %H:%M:%S}" if (at := each.delivered_at or each.next_try_at) else "given up",
            )
            for each in found
        ]
        show_table(("event", "kind", "tries", "last answer", "delivered, or next try (UTC)"), rows)


@app.command()
def replay(account: TheAccount, webhook: Id, event: Annotated[str, typer.Argument(help="Event id.")]) -> None:
    """Send a message again, delivered or not, as soon as somebody sends webhooks (`bgbatch serve` does)."""
    with stores() as parts, parts.records.transaction() as connection:
        webhooks.replay(connection, _own(connection, account, webhook).webhook_id, event, parts.clock())


@app.command()
def remove(account: TheAccount, webhook: Id) -> None:
    """Tell this address nothing more, and forget it with its messages."""
    with stores() as parts, parts.records.transaction() as connection:
        webhooks.end(connection, _own(connection, account, webhook).webhook_id, parts.clock())


def _own(connection: Connection, account: str, webhook_id: str) -> Webhook:
    return webhooks.find(connection, find_account(connection, account).account_id, webhook_id)
