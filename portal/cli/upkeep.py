"""cleanup, reconcile, receipts, certificate, audit, canary, settings: an operator's commands."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from flows import engine
from flows.cleaning import purge
from flows.parts import Parts, parts_to_clean, using
from portal.cli.terminal import (
    OUR_FAULT,
    AsJson,
    exit_codes,
    get_ready,
    read_settings,
    say,
    show_fields,
    show_json,
    show_table,
    tell,
)
from schemas.certificate import Certificate, MoreLinks, check_certificate, check_more
from schemas.clock import system_clock
from schemas.counting import so_many
from schemas.errors import BgbatchError, EngineFault, UserError
from store.batches import get_batch
from store.certificates import certify, more_links
from store.logs import set_up
from store.purge import PurgeReport
from store.receipts import each_receipt, list_receipts, verify_receipts
from store.settings import Settings

_File = TypeVar("_File", Certificate, MoreLinks)
_PASSWORD = re.compile(r"(?<=://)([^:/@?#]*:).*(?=@)|([?&]\w*password=)[^&#]+")


def cleanup(as_json: AsJson = False) -> None:
    """Purge every batch whose time has come, and leave receipts. Run it every 10 minutes."""
    with exit_codes():
        report = cleaned(ready_to_clean())
        if as_json:
            receipts = [each.model_dump(mode="json") for each in report.receipts]
            show_json({"receipts": receipts, "strays": report.strays})
        else:
            batches = so_many(len(report.receipts), "batch")
            say(f"{batches} purged, {so_many(report.strays, 'stray object')} deleted.")


def cleaned(parts: Parts) -> PurgeReport:
    """What a cleanup did on these parts. Raises a `BgbatchError` for what is wrong, after purging all that can be."""
    try:
        from flows.cleanup import cleanup as cleanup_flow

        engine.start()
    except Exception as trouble:  # noqa: BLE001 - whatever keeps Prefect from running must not keep what is due
        raise _cleaned_without_prefect(parts, trouble) from None
    try:
        with using(parts):
            return cleanup_flow()
    except (BgbatchError, SQLAlchemyError):
        raise
    except Exception as trouble:  # noqa: BLE001 - the same
        raise _cleaned_without_prefect(parts, trouble) from None


def _cleaned_without_prefect(parts: Parts, trouble: Exception) -> EngineFault:
    report = purge(parts)
    return EngineFault(
        f"Prefect did not run the cleanup ({type(trouble).__name__}): {so_many(len(report.receipts), 'batch')} "
        f"purged without it, with {so_many(len(report.faults), 'fault')}. Look at its server, and at the space under "
        "BGBATCH_HOME."
    )


def ready_to_clean() -> Parts:
    """As `get_ready`, whatever is wrong: the parts name the troubles."""
    return parts_to_clean(settings_to_clean(), system_clock)


def settings_to_clean() -> Settings:
    """The settings in force, with logs and engine ready for a flow."""
    settings = read_settings()
    set_up(settings.log)
    with suppress(OSError):  # a home that cannot be written keeps Prefect from running, and not what is due
        engine.prepare(settings)
    return settings


def reconcile(as_json: AsJson = False) -> None:
    """Compare the lake with the ledger; erase whatever has no live grant behind it. Run it every 10 minutes."""
    with exit_codes():
        parts = ready_to_clean()  # an unfit bucket for photos must not keep in the lake what was taken back
        from flows.reconcile import reconcile as reconcile_flow

        engine.start()
        with using(parts):
            report = reconcile_flow()
        if as_json:
            show_json(report.model_dump(mode="json"))
        else:
            grants = so_many(len(report.receipts), "grant")
            say(f"{so_many(report.objects, 'lake file')} erased; {grants} wholly erased.")
        for trouble in parts.troubles:
            raise trouble


def receipts(
    subject: Annotated[str | None, typer.Argument(help="A batch id or grant id. Without it: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the receipts of what was deleted, after checking that none was changed or removed."""
    with exit_codes():
        parts = get_ready()
        with parts.records.reading() as connection:
            verify_receipts(each_receipt(connection))
            found = list_receipts(connection, subject)
        if as_json:
            show_json([each.model_dump(mode="json") for each in found])
            return
        rows = [
            (
                each.kind,
                each.subject,
                each.objects,
                each.bytes,
                f"{each.last_deletion:%Y-%m-%d %H:%M:%S}",
                f"{each.margin_seconds / 3600:.2f} h",
            )
            for each in found
        ]
        show_table(("what", "id", "objects", "bytes", "gone at (UTC)", "before its deadline"), rows)
        if not rows:
            tell("A receipt is written when a batch is purged, by its purge time at the latest.")


def certificate(
    batch_id: Annotated[str | None, typer.Argument(help="The batch.")] = None,
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
        if check is not None:
            links = _check(check, more or [])
            say(f"It holds: the receipt is unchanged, and {links} links lead from it to the head.")
            return
        if batch_id is None:
            raise UserError("Say which: a batch, or --check FILE.")
        parts = get_ready()
        with parts.records.reading() as connection:
            found: Certificate | MoreLinks = certify(
                connection, get_batch(connection, batch_id).stamp.batch_id, parts.clock()
            )
            if after is not None:
                found = more_links(connection, after)
        show_json(found.model_dump(mode="json"))


def _check(file: Path, more: Sequence[Path]) -> int:
    certificate = _read(file, Certificate)
    links = check_certificate(certificate)
    last: Certificate | MoreLinks = certificate
    for each in more:
        following = _read(each, MoreLinks)
        links += check_more(last, following)
        last = following
    return links


def _read(file: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError:
        what = "no certificate" if kind is Certificate else "no file that a certificate goes on in"
        raise UserError(f"{file} is {what}, or a part of it is missing. Download it again.") from None


def audit(
    days: Annotated[float, typer.Option(help="How far back to look.", min=0, max=36_500)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Say whether the promise held: replay ledger, receipts and listings, and read the lake with a second reader."""
    with exit_codes():
        parts = get_ready()
        from portal.audit import audit as look

        now = parts.clock()
        result = look(parts, now - timedelta(days=days), now)
        if as_json:
            show_json({**asdict(result), "held": result.held})
        else:
            gap = f"{result.longest_gap_minutes:.0f}" if result.longest_gap_minutes is not None else "none"
            show_fields({**result.looked_at, "longest gap between good cleanups, min": gap})
            for each in result.broken:
                say(Text.assemble(("broken", "bold red"), f" {each}"))
            say(
                "The promise held."
                if result.held
                else f"The promise was broken in {so_many(len(result.broken), 'way')}."
            )
        if not result.held:
            raise typer.Exit(OUR_FAULT)


def canary() -> None:
    """Send a batch of our own, to see that nothing of it stays. Run it every hour; cleanups look for it."""
    with exit_codes():
        parts = get_ready()
        from flows.canary import send_canary

        say(send_canary(parts))


def settings() -> None:
    """Show the settings in force and what each is for; BGBATCH_<NAME> in the environment sets it. Secrets are stars."""
    with exit_codes():
        in_force = read_settings().model_dump()
        width = max(map(len, in_force))
        for name, value in in_force.items():
            shown = "" if value is None else _starred(value)
            say(f"BGBATCH_{name.upper():<{width}}  {shown}", highlight=False)
            say(f"    {Settings.model_fields[name].description}", highlight=False)
        known = {f"BGBATCH_{name.upper()}" for name in in_force}
        unknown = sorted(name for name in os.environ if name.startswith("BGBATCH_") and name not in known)
        if unknown:
            tell(f"There are no such settings: {', '.join(unknown)}.")


def _starred(value: object) -> object:
    """An address with stars for the password in it, if there is one; what is secret as a whole hides itself."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}{'*' * 10}", value) if isinstance(value, str) else value
