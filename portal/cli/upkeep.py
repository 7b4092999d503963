"""cleanup, reconcile, receipts, settings: an operator's commands."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from flows.parts import Parts, parts_without_records
from portal.cli.terminal import exit_codes, get_ready, out, read_settings, show_fields, show_json, show_table
from schemas.clock import system_clock
from store.receipts import list_receipts, verify_receipts

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def cleanup(as_json: AsJson = False) -> None:
    """Purge every batch whose time has come, and leave receipts. Run it every 10 minutes."""
    with exit_codes():
        parts = _ready_to_clean()
        from flows.cleanup import cleanup as cleanup_flow
        from flows.parts import using

        with using(parts):
            report = cleanup_flow()
        if as_json:
            receipts = [each.model_dump(mode="json") for each in report.receipts]
            show_json({"receipts": receipts, "strays": report.strays})
        else:
            out.print(f"{len(report.receipts)} batches purged, {report.strays} stray objects deleted.")


def _ready_to_clean() -> Parts:
    """Whatever the state of the records: what is due goes without them."""
    try:
        return get_ready()
    except OperationalError:
        return parts_without_records(read_settings(), system_clock)


def reconcile(as_json: AsJson = False) -> None:
    """Compare the lake with the ledger; erase whatever has no live grant behind it. Run it every 10 minutes."""
    with exit_codes():
        parts = get_ready()
        from flows.parts import using
        from flows.reconcile import reconcile as reconcile_flow

        with using(parts):
            report = reconcile_flow()
        if as_json:
            show_json(report.model_dump(mode="json"))
        else:
            out.print(f"{report.objects} lake files erased; {len(report.receipts)} grants are wholly erased.")


def receipts(
    subject: Annotated[str | None, typer.Argument(help="A batch id or grant id. Without it: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the receipts of what was deleted, after checking that none was changed or removed."""
    with exit_codes():
        parts = get_ready()
        with parts.records.transaction() as connection:
            verify_receipts(list_receipts(connection))
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


def settings() -> None:
    """Show the settings in force; each is set with BGBATCH_<NAME> in the environment."""
    with exit_codes():
        in_force = read_settings()
        show_fields({f"BGBATCH_{name.upper()}": value for name, value in in_force.model_dump().items()})
