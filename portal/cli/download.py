"""download: cutouts into a folder or a place of the customer's own, which `submit --to` does, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer

from flows.parts import Parts
from portal.batches import require_there
from portal.cli.place import require_known
from portal.cli.status import find_batch
from portal.cli.terminal import AsJson, exit_codes, exit_for, get_ready, progress_bar, say, show_json, tell
from portal.delivery import deliver, deliver_to_place, read_results, require_apart
from portal.fetched import note_fetched
from schemas.counting import so_many
from schemas.errors import UserError
from schemas.ids import AccountId
from store.outside.allowed import IN_PLACE, check_place, holds, real_place
from store.outside.opened import open_to_deliver
from store.records.batches import BatchRecord
from store.records.early_purge import want_gone_on_download


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
    with exit_codes("Run the same command again: it fetches all."):
        require_known(to)
        parts = get_ready()
        record = find_batch(parts, batch)
        require_there(record, parts.clock())
        check_place_for_cutouts(parts, record.account_id, to)
        if purge:
            with parts.records.transaction() as connection:
                want_gone_on_download(connection, record.stamp.batch_id)
        if not fetch_cutouts(parts, record, to, as_json):
            exit_for(record.state)


def keep_apart(source: str, to: str | None) -> None:
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


def check_place_for_cutouts(parts: Parts, account_id: AccountId, to: str | None) -> None:
    """Before the work or a count, not after. Raises `NotAllowed`, `OSError` when nothing can be written there."""
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
def what_is_left_to_fetch(batch_id: str) -> Iterator[None]:
    """The cutouts are made: whoever is told to go on need not have them made again."""
    try:
        yield
    except BaseException:
        tell(f"All that is done can still be fetched: bgbatch download {batch_id} --to FOLDER")
        raise


def fetch_cutouts(parts: Parts, record: BatchRecord, to: str, as_json: bool, to_stderr: bool = False) -> int:
    """Put all cutouts of a batch there, and say how many; returns it. Raises as `deliver` does, `NotAllowed`."""
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
    return count
