"""submit, run, status, download, retry, cancel: a dealer's commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer

from flows import engine
from flows.parts import Parts
from portal.batches import ask_again, call_off, has_results
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
)
from portal.cli.lease import holding
from portal.cli.places import require_known
from portal.cli.sending import send
from portal.cli.terminal import (
    AsJson,
    exit_codes,
    exit_for,
    get_ready,
    progress_bar,
    say,
    show_fields,
    show_json,
    show_table,
    tell,
)
from portal.delivery import deliver, deliver_to_place, read_results, require_apart
from portal.fetched import note_fetched
from portal.permission import live_grant_ids
from schemas.counting import so_many
from schemas.errors import NotFound, UserError
from schemas.ids import AccountId
from schemas.industries import Industry, parse_industry
from schemas.left_out import told
from schemas.options import Channels, Format, Size, parse_options
from schemas.results import Done, Failed, results_by_number
from store.batches import BatchRecord, get_batch, list_batches
from store.early_purge import want_gone_on_download
from store.health import cleans_up_by_itself
from store.outside import IN_PLACE, check_place, holds, open_to_deliver, real_place
from store.people import find_account
from store.transient import TransientStore

_CUTS, _WAITS = "Removing backgrounds", "Waiting for its turn"

To = Annotated[str | None, typer.Option(help="Also put the cutouts into this folder or s3://bucket/prefix.")]


def submit(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of photos (sub-folders keep their names), one photo, zip file, or manifest (CSV, JSON). "
            "Or s3://bucket/prefix: its photos stay there."
        ),
    ],
    account: Annotated[str, typer.Option(help="Account name or id: see `bgbatch account create`.")],
    industry: Annotated[str | None, typer.Option(help=f"One of: {', '.join(Industry)}.")] = None,
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
        options = parse_options(
            {
                "format": format,
                "channels": channels,
                "size": size,
                "bg_color": bg_color,
                "bg_image": bg_image,
                "crop": crop,
                "crop_margin": crop_margin,
                "refine": refine,
                "despill": despill,
                "shadow": shadow,
                "consistent": consistent,
            }
        )
        tag = parse_industry(industry) if industry is not None else None
        _keep_apart(source, to)
        parts = get_ready()
        with parts.records.reading() as connection:
            account_id = find_account(connection, account).account_id
        _check_place_for_cutouts(parts, account_id, to)
        with exit_codes("Submit the photos again."):
            batch_id = send(parts, source, account_id, tag, options)
        _process(parts, batch_id, as_json, to)


def run(
    batch: Annotated[str, typer.Argument(help="Batch id, as `bgbatch status` shows it.")],
    to: To = None,
    as_json: AsJson = False,
) -> None:
    """Run a batch again: only what is not done yet is done. For a batch whose run was interrupted."""
    with exit_codes():
        _process(get_ready(), batch, as_json, to, once_more=True)


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
        with parts.records.reading() as connection:
            record = get_batch(connection, batch)
        _check_place_for_cutouts(parts, record.account_id, to)
        ask_again(parts.records, parts.transient, parts.clock, record, None if failed else code)
        _process(parts, batch, as_json, to)


def cancel(batch: Annotated[str, typer.Argument(help="Batch id.")], as_json: AsJson = False) -> None:
    """Call a batch off: no more work is begun for it, what is done can be fetched, and it is purged on time."""
    with exit_codes():
        parts = get_ready()
        with parts.records.reading() as connection:
            record = get_batch(connection, batch)
        call_off(parts.records, parts.clock, record)
        with parts.records.reading() as connection:
            record = get_batch(connection, batch)
        _show_one(parts, record, as_json, names=False)


def status(
    batch: Annotated[str | None, typer.Argument(help="Batch id. Without it: the newest batches.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account's batches.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far batches are, what failed and why, which cutouts to look at, and when each will be gone."""
    with exit_codes():
        parts = get_ready()
        with parts.records.reading() as connection:
            if batch is not None:
                records = [get_batch(connection, batch)]
            else:
                owner = find_account(connection, account).account_id if account else None
                records = list_batches(connection, owner)
        if batch is None:
            _show_list(records, as_json)
            if not records:
                tell("`bgbatch submit FOLDER --account NAME` sends the first.")
            return
        _show_one(parts, records[0], as_json)


def download(
    batch: Annotated[str, typer.Argument(help="Batch id.")],
    to: Annotated[
        str, typer.Option(help="Folder or s3://bucket/prefix for the cutouts; the photos' sub-folders are kept.")
    ],
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the finished batch with the next cleanup once all is fetched.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the cutouts of a batch, under the names and sub-folders of their photos."""
    with exit_codes():
        require_known(to)
        parts = get_ready()
        with parts.records.reading() as connection:
            record = get_batch(connection, batch)
        gone = _gone(parts, record)
        if gone is not None:
            raise NotFound(gone)
        if purge:
            with parts.records.transaction() as connection:
                want_gone_on_download(connection, record.stamp.batch_id)
        _download(parts, record, to, as_json)


def _process(parts: Parts, batch_id: str, as_json: bool, to: str | None, once_more: bool = False) -> None:
    with parts.records.reading() as connection:
        record = get_batch(connection, batch_id)
    _check_place_for_cutouts(parts, record.account_id, to)
    if not (once_more and _is_all_done(parts, record)):
        record = _work_through(parts, record, once_more)
    _show_one(parts, record, as_json)
    if to is not None and (gone := _gone(parts, record)) is not None:
        tell(gone)
    elif to is not None:
        with _what_is_left_to_fetch(batch_id):
            _download(parts, record, to, as_json=False, to_stderr=as_json)
    exit_for(record.state)


def _is_all_done(parts: Parts, record: BatchRecord) -> bool:
    """Whether a run of it would find nothing to do: then neither Prefect nor Ray need start."""
    if not (record.state.has_ended and has_results(record, parts.clock())):
        return False
    from flows.steps import plan

    return not plan(parts, record.stamp.batch_id)


def _work_through(parts: Parts, record: BatchRecord, once_more: bool) -> BatchRecord:
    """See the batch to its end, by whomever. The batch as it stands then."""
    batch_id = record.stamp.batch_id
    rest = f"`bgbatch status {batch_id}` shows it, and `bgbatch run {batch_id}` does the rest."
    go_on = f"What is done stays done: {rest}"
    told: list[str] = []
    with exit_codes(go_on), progress_bar(_CUTS, record.counts.items or None) as bar:

        def tell_whether_it_waits(waits: bool) -> None:
            bar.rename(_WAITS if waits else _CUTS)
            if waits and not told:
                told.append(batch_id)
                tell(
                    "Other batches are being cut just now, so this one stands in line for its turn. Ctrl-C leaves it "
                    f"there; `bgbatch run {batch_id}` does it here, beside the others."
                )

        # Prefect is slow to import: `bgbatch --help` must not wait for it. An idle dispatcher has the batch by then.
        from flows.process_batch import process_batch

        with holding(replace(parts, watch=bar.watch), batch_id, once_more, tell_whether_it_waits) as held:
            if held is not None:
                with engine.running(held):
                    process_batch(batch_id)
        with parts.records.reading() as connection:
            record = get_batch(connection, batch_id)
        bar.watch(record.counts)
    return record


def _keep_apart(source: str, to: str | None) -> None:
    """Raises `UserError` for cutouts among the photos: sent again, the folder would have them for photos."""
    if to is None:
        return
    require_known(to)
    if holds(_as_place(source), _as_place(to)):
        raise UserError(
            "The cutouts would lie among the photos: sent again, they would be taken for photos, and one of a photo's "
            "own name would replace it. Name a place beside the photos."
        )


def _as_place(named: str) -> str:
    return named if "://" in named else f"file://{named}"


def _check_place_for_cutouts(parts: Parts, account_id: AccountId, to: str | None) -> None:
    """Before hours of work, not after. Raises `NotAllowed`, `OSError` when nothing can be written there."""
    if to is None:
        return
    require_known(to)
    if to.startswith(IN_PLACE):
        with parts.records.reading() as connection:
            check_place(connection, account_id, to, parts.settings)
        return
    Path(to).mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=to).close()


@contextmanager
def _what_is_left_to_fetch(batch_id: str) -> Iterator[None]:
    """The cutouts are made: whoever is told to go on need not have them made again."""
    try:
        yield
    except BaseException:
        tell(f"All that is done can still be fetched: bgbatch download {batch_id} --to FOLDER")
        raise


def _download(parts: Parts, record: BatchRecord, to: str, as_json: bool, to_stderr: bool = False) -> None:
    batch_id = record.stamp.batch_id
    results = read_results(parts.transient, batch_id)
    with progress_bar("Downloading", record.counts.done) as bar:
        if to.startswith(IN_PLACE):
            with parts.records.reading() as connection:
                place = real_place(connection, record.account_id, to, parts.settings)
            require_apart(results, place)
            count = deliver_to_place(parts.transient, results, open_to_deliver(place, parts.settings), bar.advance)
        else:
            count = deliver(parts.transient, results, Path(to), bar.advance)
    goes = note_fetched(parts.records, results, parts.clock)
    if as_json:
        show_json({"batch_id": batch_id, "cutouts": count, "to": to, "goes_with_next_cleanup": goes})
    else:
        last = "; the next cleanup deletes the batch" if goes else ""
        (tell if to_stderr else say)(f"{so_many(count, 'cutout')} in {to}{last}")


@dataclass(frozen=True)
class _Became:
    """What a person should hear of: photos that failed, and cutouts to look at, with the customer's own names."""

    failures: Sequence[Mapping[str, object]] = ()
    to_check: Sequence[Mapping[str, object]] = ()


def _is_due(parts: Parts, record: BatchRecord) -> bool:
    """Whether its purge time has come and its receipt has not: it may be gone, or lie there for minutes more."""
    return record.purged_at is None and record.stamp.purge_at <= parts.clock()


def _is_cleaned_up(parts: Parts) -> bool:
    """Whether something runs cleanups where these stores are, as far as the records know."""
    if parts.settings.cleanup_expected:
        return True
    with parts.records.reading() as connection:
        return cleans_up_by_itself(connection, parts.clock())


def _gone(parts: Parts, record: BatchRecord) -> str | None:
    """Why nothing of it is handed out any more, if so."""
    batch_id = record.stamp.batch_id
    if record.purged_at is not None:
        return f"Batch {batch_id} was purged at {record.purged_at:%Y-%m-%d %H:%M} UTC. Submit it again."
    if _is_due(parts, record):
        return f"The purge time of batch {batch_id} has come: nothing of it is handed out. Submit it again."
    return None


def _became(transient: TransientStore, record: BatchRecord) -> _Became:
    """The names are read from the transient store and shown, not kept."""
    paths = dict(enumerate(transient.manifest(record.stamp.batch_id).paths, start=1))
    results = sorted(results_by_number(transient.reports(record.stamp.batch_id)).items())
    return _Became(
        [
            {"path": paths[number], "code": result.code, "sentence": result.sentence}
            for number, result in results
            if isinstance(result, Failed)
        ],
        [
            {"path": paths[number], "flags": result.flags}
            for number, result in results
            if isinstance(result, Done) and result.flags
        ],
    )


def _show_list(records: list[BatchRecord], as_json: bool) -> None:
    if as_json:
        show_json([record.model_dump(mode="json") for record in records])
        return
    rows = [
        (
            record.stamp.batch_id,
            f"{record.counts.items} {record.stamp.industry or ''}".strip(),
            _how_far(record),
            f"{record.purged_at or record.stamp.purge_at:%Y-%m-%d %H:%M}",
        )
        for record in records
    ]
    show_table(("batch", "photos", "state", "gone by (UTC)"), rows)  # as narrow as a window of 80 columns


def _how_far(record: BatchRecord) -> str:
    state = record.state.replace("_", " ")
    is_all = record.counts.done == record.counts.items
    return state if is_all else f"{state}: {record.counts.done} done, {record.counts.failed} failed"


def _show_one(parts: Parts, record: BatchRecord, as_json: bool, names: bool = True) -> None:
    """`names`: also what failed and what to look at, as long as that can be read."""
    is_due = _is_due(parts, record)
    became = _became(parts.transient, record) if names and has_results(record, parts.clock()) else _Became()
    if as_json:
        show_json(record.model_dump(mode="json") | asdict(became))
        return
    stamp, counts, to_check = record.stamp, record.counts, len(became.to_check)
    look = f" ({to_check} to look at)" if to_check else ""
    told_at = f"{record.purged_at or stamp.purge_at:%Y-%m-%d %H:%M:%S} UTC"
    due = ": that time has come, and the cleanup that finds nothing left leaves the receipt" if is_due else ""
    is_permitted = stamp.grant_id in live_grant_ids(parts.records, record.account_id)
    withdrawn = "no: the permission was taken back" if stamp.grant_id else "no"
    show_fields(
        {
            "batch": stamp.batch_id,
            "state": record.state,
            "photos": f"{counts.items}: {counts.done} done{look}, {counts.failed} failed",
            **({"left out": told(record.left_out)} if record.left_out else {}),
            "received": f"{stamp.received_at:%Y-%m-%d %H:%M:%S} UTC",
            "purged" if record.purged_at else "gone by": told_at + due,
            "may train models": "yes, as long as the account's grant lives" if is_permitted else withdrawn,
        }
    )
    if record.purged_at is None and not _is_cleaned_up(parts):
        tell(
            "If neither `bgbatch serve` nor `bgbatch upkeep` keeps running here, nothing deletes the batch: "
            f"run `bgbatch cleanup` {'now' if is_due else 'at that time'}."
        )
    if became.failures:
        show_table(("photo", "code", "what happened"), [tuple(failure.values()) for failure in became.failures])
    if became.to_check:
        rows = [(each["path"], ", ".join(each["flags"])) for each in became.to_check]  # type: ignore[arg-type]
        show_table(("photo", "look at it, for"), rows)
