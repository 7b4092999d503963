"""Every place where a customer's bytes or names can come to lie: how long they stay, who erases them, who looks.

`docs/places.md` is written from this list. A test fails when code of ours writes somewhere that is not in it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from schemas.batch import PROMISED_LIFE
from schemas.counting import so_many
from store.settings import Settings

ENGINE_LIFE = timedelta(days=7)
"""How long Prefect's runs and their logs stay: they hold ids and numbers only."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Place:
    """A place. `folders`: where it is on this machine, for those who search it; none for what is elsewhere.

    `is_listed`: keys are known there, and canaries are looked for by them; elsewhere every file is searched for one.
    `may_hold`: what of a customer can be there at all. `retention` None: for as long as the records are needed.
    `writers`: modules of ours that write there.
    """

    name: str
    may_hold: str
    retention: timedelta | None
    eraser: str
    verifier: str
    writers: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    is_listed: bool = False


def places(settings: Settings) -> list[Place]:
    """All of them, with these settings."""
    return [
        Place(
            "transient store",
            "photos, cutouts, masks, reports, file names",
            PROMISED_LIFE,
            "`store.purging.purge`, every 10 min: objects, versions, delete markers and unfinished uploads by path",
            "a listing after the deletion; `store.purging.health.oldest_byte`; canaries: by their paths",
            (
                "store.objects.folder",
                "store.objects.s3",
                "store.objects.object_store",
                "store.transient.transient_store",
            ),
            _local(settings.transient_root),
            is_listed=True,
        ),
        Place(
            "uploads in progress",
            "photos in parts",
            PROMISED_LIFE,
            "they lie in the transient store, under their batch's hour, and S3's unfinished uploads are listed and "
            "aborted by the same purge",
            "as the transient store",
            ("store.objects.s3", "store.transient.uploads"),
        ),
        Place(
            "presigned links",
            "an address that hands out one photo or cutout",
            PROMISED_LIFE,
            "`TransientStore.link`: a link ends with its batch at the latest",
            "a test asks a real server for an object after its link's end",
            ("store.transient.transient_store",),
        ),
        Place(
            "lake",
            "photos and masks with a live grant, without names or accounts",
            None,
            "`lake.erase`: by reconcile within 10 minutes of the withdrawal",
            "reconcile lists the whole lake; `bgbatch audit` reads it with a second reader; canaries: by their names, "
            "and by what was admitted",
            ("lake.write", "lake.compact", "lake.parquet", "store.objects.object_store"),
            _local(settings.lake_root),
            is_listed=True,
        ),
        Place(
            "records database",
            "account names, people's addresses and when each signed in last, ids, numbers; what an account set up: "
            "schedules and their places, addresses of webhooks, names of keys; reasons of withdrawals. No file name, "
            "no address of a photo, no pixel",
            None,
            "sign-in links and sessions when they expire; somebody's address and time of signing in when they are "
            "taken out; names and what was set up when an account is closed; reasons never",
            "canaries: SQLite's file is searched for markers; PostgreSQL's is not",
            ("store.records.database",),
            _database(settings),
        ),
        Place(
            "suppressions",
            "ids of withdrawn grants, purged batches and closed accounts",
            None,
            "none needed: what they hold says nothing about a person or a photo",
            "canaries: where it is a folder, its files are searched for markers",
            ("consent.suppression",),
            _local(settings.suppressions_root),
        ),
        Place(
            "Ray sessions, spill folders and worker logs",
            "nothing by design; spilled objects and tracebacks if the design fails",
            timedelta(hours=1),
            "`store.purging.ray_sessions`: folders of sessions whose processes are gone, on every cleanup",
            "canaries: searched for markers",
            (),
            (ray_folder(),),
        ),
        Place(
            "plasma (shared memory)",
            "nothing by design: photos do not pass through Ray",
            timedelta(hours=1),
            "the kernel, when Ray's processes end",
            "canaries: searched for markers",
            (),
            (SHARED_MEMORY,),
        ),
        Place(
            "Prefect's database, results and logs",
            "ids and numbers",
            ENGINE_LIFE,
            "`store.purging.engine_history` on every cleanup, and Prefect's own vacuum on a server",
            "canaries: searched for markers",
            ("flows.engine",),
            (prefect_folder(settings),),
        ),
        Place(
            "web server logs and temporary files",
            "nothing: the log of requests holds routes and ids, uploads stream into the transient store",
            timedelta(),
            "none needed",
            "canaries: the temporary folder is searched for markers",
            ("portal.cli.serve",),
            (Path(tempfile.gettempdir()),),
        ),
        Place(
            "browser cache",
            "cutouts and pages with file names, on the customer's own machine",
            timedelta(),
            "`Cache-Control: no-store` on every page and file but static ones, and on what a presigned link hands out",
            "a test reads the header of every route",
            ("portal.web.app",),
        ),
        Place(
            "core dumps",
            "memory of a worker that crashed",
            timedelta(),
            "none is written: `store.no_core_dumps` limits it to one byte when a process opens the transient store",
            "a test reads the limit, and what a crash leaves",
        ),
        Place(
            "the customer's own disk",
            "cutouts that they downloaded, contact sheets, copies pulled by the ML team",
            None,
            "theirs; copies of the lake are listed and taken back by `bgbatch lake verify`",
            "theirs",
            (
                "portal.delivery",
                "portal.cli.download",
                "portal.contact_sheet",
                "portal.cli.lake",
                "portal.demo.story",
                "portal.demo.people",
                "lake.copies",
                "lake.pull",
                "lake.stats",
                "consent.truth_table",
                "workers.networks.importing",
            ),
        ),
    ]


def prefect_folder(settings: Settings) -> Path:
    """Where Prefect keeps its database on this machine."""
    return Path(os.environ.get("PREFECT_HOME", settings.home / "prefect"))


def ray_folder() -> Path:
    """Where Ray keeps its sessions on this machine."""
    return Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray"


def places_page(settings: Settings) -> str:
    """`docs/places.md`."""
    lines = [
        "# Where a customer's bytes or names can come to lie",
        "",
        "Written by `python -m store.purging.places > docs/places.md`; a test compares the two.",
        "Canaries: the store is listed; folders are searched on the machine (or container) of the cleanup that looks.",
        "",
        "| place | what may be there | stays at most | erased by | looked at by |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.may_hold} | {_words(each.retention)} | {each.eraser} | {each.verifier} |"
        for each in places(settings)
    ]
    return "\n".join(lines) + "\n"


def _words(retention: timedelta | None) -> str:
    if retention is None:
        return "while it is needed"
    hours = int(retention.total_seconds() // 3600)
    return "not at all" if hours == 0 else f"{hours} h" if hours <= 24 else so_many(hours // 24, "day")


def _local(root: str) -> tuple[Path, ...]:
    return () if root.startswith("s3://") else (Path(root.removeprefix("file://")),)


def _database(settings: Settings) -> tuple[Path, ...]:
    address = settings.records_address
    path = address.removeprefix("sqlite:///")
    return tuple(Path(f"{path}{end}") for end in ("", "-wal", "-shm")) if path != address else ()


if __name__ == "__main__":
    print(places_page(Settings()), end="")  # noqa: T201
