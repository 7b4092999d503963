"""submit, run, retry: a batch from its photos to its end, by whomever, and its cutouts to where they are wanted."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Annotated

import typer

from flows import engine
from flows.parts import Parts
from portal.batches import ask_again, has_results, require_there, why_gone
from portal.cli.account import AccountOrOnly, account_or_only
from portal.cli.batch_lease import holding
from portal.cli.cutout_options import (
    BgColor,
    Crop,
    CropMargin,
    Despill,
    Refine,
    Shadow,
    TheChannels,
    TheFormat,
    TheSize,
    options_in,
)
from portal.cli.download import check_place_for_cutouts, fetch_cutouts, keep_apart, what_is_left_to_fetch
from portal.cli.sending import send
from portal.cli.status import find_batch, show_one
from portal.cli.terminal import AsJson, ItsIndustry, exit_codes, exit_for, get_ready, progress_bar, stores, tell
from schemas.batch import BatchState
from schemas.errors import UserError
from schemas.industries import parse_industry
from schemas.options import Channels, Format, Size
from store.records.batches import BatchRecord

_CUTS, _WAITS = "Removing backgrounds", "Waiting for its turn"

To = Annotated[str | None, typer.Option(help="Also put the cutouts into this folder or s3://bucket/prefix.")]


def submit(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of photos (sub-folders keep their names), one photo, zip file, or manifest (CSV, JSON). "
            "Or s3://bucket/prefix: its photos stay there."
        ),
    ],
    account: AccountOrOnly = None,
    industry: ItsIndustry = None,
    format: TheFormat = Format.PNG,
    channels: TheChannels = Channels.RGBA,
    size: TheSize = Size.AUTO,
    bg_color: BgColor = None,
    bg_image: Annotated[
        str | None, typer.Option(help="One of the folder's photos to put behind the others, by its relative path.")
    ] = None,
    crop: Crop = False,
    crop_margin: CropMargin = "0px",
    refine: Refine = False,
    despill: Despill = False,
    shadow: Shadow = False,
    consistent: Annotated[bool, typer.Option("--consistent", help="Same height and line for every subject.")] = False,
    to: To = None,
    as_json: AsJson = False,
) -> None:
    """Send a folder of photos through: upload, remove the backgrounds, show what became of each.

    Exit code 0: all done; 3: some photos failed; 4: all failed; 5: called off; 1: not finished, or a fault of ours.
    Nothing is kept over 24 hours.
    """
    with exit_codes():
        options = options_in(context)
        tag = parse_industry(industry) if industry is not None else None
        keep_apart(source, to)
        parts = get_ready()
        with parts.records.reading() as connection:
            account_id = account_or_only(connection, account)
        check_place_for_cutouts(parts, account_id, to)
        with exit_codes("Submit the photos again."):
            batch_id = send(parts, source, account_id, tag, options)
        _process(parts, batch_id, as_json, to)


def run(
    batch: Annotated[str, typer.Argument(help="Batch id, as `bgbatch status` shows it.")],
    to: To = None,
    as_json: AsJson = False,
) -> None:
    """Run a batch again: only what is not done yet is done. For a batch that was interrupted, or called off."""
    with stores() as parts:
        record = find_batch(parts, batch)
        require_there(record, parts.clock())
        if record.state is BatchState.OPEN:
            parts.transient.manifest(record.stamp.batch_id)  # there is none: said before Prefect is imported
        check_place_for_cutouts(parts, record.account_id, to)
        _process(parts, batch, as_json, to, once_more=True)


def retry(
    batch: Annotated[str, typer.Argument(help="Batch id.")],
    code: Annotated[list[str] | None, typer.Option(help="Only failures with this code; may be repeated.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed, whatever the code.")] = False,
    to: To = None,
    as_json: AsJson = False,
) -> None:
    """Try failed photos again: `--failed` for all, or by `--code`. What is done stays done."""
    with exit_codes():
        if bool(code) == failed:
            raise UserError("Say which photos: --failed for all, or --code with a code that `bgbatch status` shows.")
        parts = get_ready()
        record = find_batch(parts, batch)
        check_place_for_cutouts(parts, record.account_id, to)
        ask_again(parts.records, parts.transient, parts.clock, record, None if failed else code)
        _process(parts, batch, as_json, to)


def _process(parts: Parts, batch_id: str, as_json: bool, to: str | None, *, once_more: bool = False) -> None:
    record = find_batch(parts, batch_id)
    if once_more and _is_all_done(parts, record):
        again = f" `bgbatch retry {batch_id} --failed` tries again what failed." if record.counts.failed else ""
        tell(f"Nothing of the batch is left to do.{again}")
    else:
        record = _work_through(parts, record, once_more)
    with what_is_left_to_fetch(batch_id) if to is not None else nullcontext():  # also when nobody reads what is shown
        show_one(parts, record, as_json)
        if to is not None and (gone := why_gone(record, parts.clock())) is not None:
            tell(gone)
        elif to is not None:
            fetch_cutouts(parts, record, to, as_json=False, to_stderr=as_json)
    exit_for(record.state)


def _is_all_done(parts: Parts, record: BatchRecord) -> bool:
    """Whether a run of it would find nothing to do: then neither Prefect nor Ray need start."""
    if not (record.state.has_ended and has_results(record, parts.clock())):
        return False
    from flows.steps import plan

    return not plan(parts, record.stamp.batch_id).shards


def _work_through(parts: Parts, record: BatchRecord, once_more: bool) -> BatchRecord:
    """See the batch to its end, by whomever. The batch as it stands then."""
    batch_id = record.stamp.batch_id
    rest = f"`bgbatch status {batch_id}` shows it, and `bgbatch run {batch_id}` does the rest."
    go_on = f"What is done stays done: {rest}"

    @cache  # once
    def tell_that_it_waits() -> None:
        tell(
            "Other batches are being cut just now, so this one stands in line for its turn. Ctrl-C leaves it there; "
            f"`bgbatch run {batch_id}` does it here, beside the others."
        )

    with exit_codes(go_on), progress_bar(_CUTS, record.counts.items or None) as bar:

        def tell_whether_it_waits(waits: bool) -> None:
            bar.rename(_WAITS if waits else _CUTS)
            if waits:
                tell_that_it_waits()

        # Prefect is slow to import: `bgbatch --help` must not wait for it. An idle dispatcher has the batch by then.
        from flows.process_batch import process_batch

        with holding(replace(parts, watch=bar.watch), batch_id, once_more, tell_whether_it_waits) as held:
            if held is not None:
                with engine.running(held):
                    process_batch(batch_id)
        record = find_batch(parts, batch_id)
        bar.watch(record.counts)
    return record
