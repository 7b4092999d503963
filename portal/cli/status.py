"""status, cancel: how far batches are, what failed and why, and when each will be gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from flows.parts import Parts
from flows.receive import sealed_manifest
from portal.batches import call_off, has_results
from portal.cli.terminal import LONGEST_PATH, AsJson, show_fields, show_json, show_table, stores, tell
from portal.permission import live_grant_ids
from schemas.batch import BatchState
from schemas.ids import AccountId
from schemas.left_out import told
from schemas.naming import shown
from schemas.results import Done, Failed, results_by_number
from store.purging import canary
from store.purging.health import cleans_up_by_itself
from store.records.batches import BatchRecord, get_batch, list_batches
from store.records.people import find_account, list_accounts

_NOT_WHOLE = "not all of its photos have come; if nobody sends them any more, submit them again"


def status(
    batch: Annotated[str | None, typer.Argument(help="Batch id. Without it: the newest batches.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account's batches.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far batches are, what failed and why, which cutouts to look at, and when each will be gone."""
    with stores() as parts:
        if batch is not None:
            show_one(parts, find_batch(parts, batch), as_json)
            return
        with parts.records.reading() as connection:
            owner = find_account(connection, account).account_id if account else None
            records = list_batches(connection, owner)
            names = {each.account_id: each.name for each in list_accounts(connection)}
        _show_list(records, names, as_json)


def cancel(batch: Annotated[str, typer.Argument(help="Batch id.")], as_json: AsJson = False) -> None:
    """Call a batch off: no more work is begun for it, what is done can be fetched, and it is purged on time.

    `bgbatch run` takes it up again.
    """
    with stores() as parts:
        record = find_batch(parts, batch)
        if record.state.has_ended:
            tell("The batch had ended already, so nothing was called off.")
        call_off(parts.records, parts.clock, record)
        show_one(parts, find_batch(parts, batch), as_json, names=False)


def find_batch(parts: Parts, batch_id: str) -> BatchRecord:
    """A batch as it stands now. Raises `NotFound`."""
    with parts.records.reading() as connection:
        return get_batch(connection, batch_id)


@dataclass(frozen=True)
class _Became:
    """What a person should hear of: photos that failed, and cutouts to look at, with the customer's own names."""

    failures: Sequence[Mapping[str, object]] = ()
    to_check: Sequence[Mapping[str, object]] = ()


def _is_cleaned_up(parts: Parts) -> bool:
    """Whether something runs cleanups where these stores are, as far as the records know."""
    if parts.settings.cleanup_expected:
        return True
    with parts.records.reading() as connection:
        return cleans_up_by_itself(connection, parts.clock())


def _became(parts: Parts, record: BatchRecord) -> _Became:
    """The names are read from the transient store and shown, not kept."""
    manifest = sealed_manifest(parts.records, parts.transient, record.stamp.batch_id)
    paths = dict(enumerate(manifest.paths, start=1))
    results = sorted(results_by_number(parts.transient.reports(record.stamp.batch_id)).items())
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


def _show_list(records: list[BatchRecord], names: Mapping[AccountId, str], as_json: bool) -> None:
    """`names`: of the accounts, told where there are batches of several."""
    if as_json:
        show_json([record.model_dump(mode="json") for record in records])
        return
    is_of_several = len({record.account_id for record in records} - {canary.ACCOUNT}) > 1
    rows = [
        (
            record.stamp.batch_id,
            f"{record.counts.items} {record.stamp.industry or ''}".strip()
            + (f" of {names[record.account_id]}" if is_of_several else ""),
            _how_far(record),
            f"{record.purged_at or record.stamp.purge_at:%Y-%m-%d %H:%M}",
        )
        for record in records
    ]
    first = "`bgbatch submit FOLDER --account NAME` sends the first."
    show_table(("batch", "photos", "state", "gone by (UTC)"), rows, first)  # as narrow as a window of 80 columns


def _how_far(record: BatchRecord) -> str:
    state = record.state.replace("_", " ")
    is_all = record.counts.done == record.counts.items
    return state if is_all else f"{state}: {record.counts.done} done, {record.counts.failed} failed"


def show_one(parts: Parts, record: BatchRecord, as_json: bool, names: bool = True) -> None:
    """`names`: also what failed and what to look at, as long as that can be read."""
    is_due = record.purged_at is None and record.stamp.purge_at <= parts.clock()  # gone, or there for minutes more
    became = _became(parts, record) if names and has_results(record, parts.clock()) else _Became()
    if as_json:
        show_json(record.model_dump(mode="json") | asdict(became))
        return
    stamp, counts, to_check = record.stamp, record.counts, len(became.to_check)
    look = f" ({to_check} to look at)" if to_check else ""
    told_at = f"{record.purged_at or stamp.purge_at:%Y-%m-%d %H:%M:%S} UTC"
    due = ": that time has come, and the cleanup that finds nothing left leaves the receipt" if is_due else ""
    is_sealed = record.state is not BatchState.OPEN or not record.lives(parts.clock())
    is_permitted = stamp.grant_id in live_grant_ids(parts.records, record.account_id)
    withdrawn = "no: the permission was taken back" if stamp.grant_id else "no"
    show_fields(
        {
            "batch": stamp.batch_id,
            "state": record.state if is_sealed else f"{record.state}: {_NOT_WHOLE}",
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
        failures = [(_named(each), each["code"], each["sentence"]) for each in became.failures]
        show_table(("photo", "code", "what happened"), failures)
    if became.to_check:
        rows = [(_named(each), ", ".join(each["flags"])) for each in became.to_check]  # type: ignore[arg-type]
        show_table(("photo", "look at it, for"), rows)


def _named(photo: Mapping[str, object]) -> str:
    """For a terminal: a customer's letters could turn the rest of the line round. `--json` has the path itself."""
    return shown(str(photo["path"]), LONGEST_PATH)
