"""receipts, certificate, audit: what shows that the promise was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.text import Text
from sqlalchemy import Connection

from consent.ledger import find_grant
from consent.suppression import noted_purges, open_suppressions
from flows.parts import Parts
from portal.cli.terminal import (
    OUR_FAULT,
    AsJson,
    exit_codes,
    get_ready,
    say,
    show_fields,
    show_json,
    show_json_list,
    show_table,
    stores,
    tell,
)
from schemas.certificate import Certificate, MoreLinks, check_certificate, check_more
from schemas.counting import so_many
from schemas.errors import NotFound, UserError
from schemas.ids import GrantId
from schemas.receipt import Receipt, receipt_hash
from store.purging.certificates import certify, more_links
from store.purging.receipts import each_receipt, list_receipts, newest_receipts, verify_receipts
from store.records.batches import get_batch

_File = TypeVar("_File", Certificate, MoreLinks)
_LARGEST = 10_000_000  # bytes of a certificate: ten times its longest chain, and no other file fills the memory
_SHOWN = 1_000  # receipts in a table: a year has a million, which took gigabytes to lay out


def receipts(
    subject: Annotated[
        str | None, typer.Argument(help="A batch id or grant id. Without it: the last 1,000, with --json all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the receipts of what was deleted, after checking that none was changed or removed."""
    with stores() as parts:
        with parts.records.reading() as connection:
            count = verify_receipts(each_receipt(connection))
            if as_json:
                listed = each_receipt(connection) if subject is None else _receipts_of(parts, connection, subject)
                show_json_list(each.model_dump(mode="json") for each in listed)
                return
            found = newest_receipts(connection, _SHOWN) if subject is None else _receipts_of(parts, connection, subject)
        rows = [
            (
                f"{each.kind} {each.subject}",
                f"{so_many(each.objects, 'object')}, {each.bytes / 1e6:,.1f} MB",
                f"{each.last_deletion:%Y-%m-%d %H:%M:%S}",
                f"{each.margin_seconds / 3600:.2f} h",
            )
            for each in found
        ]
        first = "A receipt is written when a batch is purged, by its purge time at the latest."
        # As narrow as a window of 80 columns.
        show_table(("what", "how much", "gone at (UTC)", "before its deadline"), rows, first)
        if subject is None and count > len(found):
            earlier = so_many(count - len(found), "earlier receipt")
            tell(f"Not shown: {earlier}. `bgbatch receipts --json` lists all.")


def _receipts_of(parts: Parts, connection: Connection, subject: str) -> list[Receipt]:
    """None for what stands undeleted yet. Raises `NotFound` for what there is not."""
    found = list_receipts(connection, subject)
    if not found and find_grant(connection, GrantId(subject)) is None:
        if subject.startswith("g"):  # as no batch's id does
            raise NotFound(f"There is no grant {subject}. `bgbatch consent show ACCOUNT` lists an account's.")
        if get_batch(connection, subject).purged_at is not None:
            noted = noted_purges(open_suppressions(parts.settings))
            found = [each for each in noted if each.subject == subject and each.hash == receipt_hash(each)]
            is_noted = "Its receipt is the one that was noted beside the lake, which no chain vouches for."
            is_lost = "No receipt of it was noted beside the lake."
            restored = "The records were restored from a backup of before this purge."
            tell(f"{restored} {is_noted if found else is_lost}")
    return found


def certificate(
    batch: Annotated[str | None, typer.Argument(help="Batch id.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check a certificate that was downloaded, without the records.")
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Option(help="With --check: how its chain goes on, a file each, in order.")
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            help="Print how the chain goes on after this head, for a chain that is long.", min=0, max=2**31 - 1
        ),
    ] = None,
) -> None:
    """Print the certificate that a batch is gone, as JSON; or check one."""
    with exit_codes():
        if check is not None and batch is None and after is None:
            of, links = _check(check, more or [])
            say(f"It holds: the receipt of batch {of} is unchanged, and {links} links lead from it to the head.")
            return
        if batch is None or check is not None or more:
            raise UserError("Say which: a batch (with --after, if need be), or --check FILE (with --more).")
        parts = get_ready()
        with parts.records.reading() as connection:
            found: Certificate | MoreLinks = certify(
                connection, get_batch(connection, batch).stamp.batch_id, parts.clock()
            )
            if after is not None:
                found = more_links(connection, after)
        show_json(found.model_dump(mode="json"))


def _check(file: Path, more: Sequence[Path]) -> tuple[str, int]:
    """Whose certificate it is, and how many links hold."""
    certificate = _read(file, Certificate)
    links = check_certificate(certificate)
    last: Certificate | MoreLinks = certificate
    for each in more:
        following = _read(each, MoreLinks)
        links += check_more(last, following)
        last = following
    return certificate.batch_id, links


def _read(file: Path, kind: type[_File]) -> _File:
    with file.open("rb") as opened:
        data = opened.read(_LARGEST)
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        what = "no certificate" if kind is Certificate else "no file that a certificate goes on in"
        raise UserError(f"{file} is {what}, or a part of it is missing. Download it again.") from None


def audit(
    days: Annotated[float, typer.Option(help="How far back to look.", min=0, max=36_500)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Say whether the promise held: replay ledger, receipts and listings, and read the lake with a second reader."""
    with stores() as parts:
        from portal.audit import audit as look

        now = parts.clock()
        result = look(parts, now - timedelta(days=days), now)
        if as_json:
            looked_at = {name.replace(" ", "_").replace(",", ""): count for name, count in result.looked_at.items()}
            show_json({**asdict(result), "looked_at": looked_at, "held": result.held})
        else:
            gap = f"{result.longest_gap_minutes:.0f}" if result.longest_gap_minutes is not None else "none"
            show_fields({**result.looked_at, "longest time without a good cleanup, min": gap})
            for each in result.broken:
                say(Text.assemble(("broken", "bold red"), f" {each}"))
            say(
                "The promise held."
                if result.held
                else f"The promise was broken in {so_many(len(result.broken), 'way')}."
            )
        if not result.held:
            raise typer.Exit(OUR_FAULT)
