"""lake pull|verify|pulls|stats|audit|compact: what an ML team and its operators do with the lake."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from flows import engine
from lake.copies.manifest import Kind
from lake.pulls import list_pulls, mark_gone
from portal.cli.copy_lease import holding_place
from portal.cli.copy_place import open_place, places_of_copy, require_in_no_copy, whole
from portal.cli.terminal import (
    SOME_FAILED,
    AsJson,
    exit_codes,
    get_ready,
    progress_bar,
    say,
    show_json,
    show_table,
    stores,
    tell,
)
from schemas.counting import so_many
from schemas.errors import CopyInTheWay, UserError
from schemas.industries import Industry, parse_industry

app = typer.Typer(no_args_is_help=True, help="Training candidates: pull them, check copies of them, look at them.")
AnIndustry = Annotated[str, typer.Option(help=f"One of: {', '.join(Industry)}.")]
AnyIndustry = Annotated[str | None, typer.Option("--industry", help="Only this one.")]
_RUN_IT_AGAIN = "Run it again to finish."


@app.command()
def pull(
    industry: AnIndustry,
    to: Annotated[str, typer.Option(help="Where the copy goes: an empty folder, or s3://bucket/prefix.")],
    where: Annotated[str | None, typer.Option(help='Condition on labels: "edge_uncertainty > 0.3".')] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    hardest_first: Annotated[bool, typer.Option("--hardest-first", help="Uncertain edges first.")] = False,
    without_duplicates: Annotated[
        str | None, typer.Option(help="exact: leave out the same image again; near: also what looks like another.")
    ] = None,
    as_kind: Annotated[str, typer.Option("--as", help=f"What the files are: {', '.join(Kind)}.")] = Kind.PARQUET,
    split: Annotated[
        str, typer.Option(help="Shares of customers for train, validation and test; a customer is wholly in one.")
    ] = "80,10,10",
    recipient: Annotated[str, typer.Option("--for", help="Who gets it: customers read this.")] = "the ML team",
    as_json: AsJson = False,
) -> None:
    """Copy the candidates of one industry whose permission is live. Run it again to go on after an interruption.

    The copy's README.md says what is in it; `bgbatch lake verify` says later what must go from it.
    """
    with exit_codes("What is copied stays: run the same command again to go on with the rest."):
        from flows.candidates import lake_of
        from lake.pull import Order
        from lake.pull import pull as pull_copy
        from lake.query import Query

        if as_kind not in set(Kind):
            raise UserError(f"A copy cannot be {as_kind!r}. Choose one of: {', '.join(Kind)}.")
        if without_duplicates not in (None, "exact", "near"):
            raise UserError("Leave out `exact` or `near` duplicates.")
        parts = get_ready()
        query = Query(parse_industry(industry), where, limit, hardest_first, without_duplicates)  # type: ignore[arg-type]
        order = Order(Kind(as_kind), recipient, place=whole(to), shares=_shares(split))
        copy = open_place(to, parts.settings)
        with holding_place(parts, order.place) as require_ours, progress_bar("Pulling") as bar:
            require_in_no_copy(order.place, parts.settings)

            def on_part(done: int, of: int) -> None:
                require_ours()
                bar.show(done, of)

            pulled = pull_copy(lake_of(parts), query, copy, parts.clock, on_part, order)
        if as_json:
            show_json({**dataclasses.asdict(pulled), "to": to})
        else:
            resumed = f"; parts that were there already: {pulled.resumed}" if pulled.resumed else ""
            size = f"{pulled.bytes / 1e6:.1f} MB"
            whose = so_many(len(pulled.grants), "customer")
            say(f"{so_many(pulled.rows, 'candidate')} of {whose} in {to}: {size}{resumed}.")
            if not pulled.rows:
                tell("No candidate fits. `bgbatch lake stats` shows what there is.")


@app.command()
def verify(
    copy: Annotated[str, typer.Argument(help="A pulled copy: its folder, or s3://bucket/prefix.")],
    erase: Annotated[bool, typer.Option("--erase", help="Delete what must go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a copy with the live permissions: what must go, and whether its files are as they were.

    Exit code 0: all well (now); 3: something must go, or is missing, changed or unknown.
    """
    with stores(_RUN_IT_AGAIN) as parts:
        from flows.candidates import lake_of
        from lake.verify import verify as verify_copy

        place, elsewhere = open_place(copy, parts.settings, must_exist=True), list[str]()

        def is_on_record(pull_id: str) -> bool:
            elsewhere[:] = [each for each in places_of_copy(parts, pull_id) if each != whole(copy)]
            return not elsewhere

        live = lake_of(parts).live()
        found = verify_copy(place, parts.records, live, parts.clock, erase, is_on_record, whole(copy))
        for each in elsewhere:
            tell(f"This is a copy of the copy in {each}: verify that one, too.")
        if as_json:
            show_json({**dataclasses.asdict(found), "is_good": found.is_good})
        else:
            if erase and found.must_go:
                left = max(found.rows - found.must_go_rows, 0)
                say(f"{so_many(found.must_go_rows, 'candidate')} erased; left in the copy: {left}.")
            else:
                what_then = ": run it again with --erase" if found.must_go else ""
                say(f"{so_many(found.rows, 'candidate')} in the copy; {found.must_go_rows:,} must go{what_then}.")
            listed = {"missing": found.missing, "changed": found.changed, "unknown": found.unknown}
            if not erase:
                listed = {"must go": found.must_go, **listed}
            for what, paths in listed.items():
                for path in paths:
                    say(f"  {what}: {path}", highlight=False)
        if not found.is_good:
            raise typer.Exit(SOME_FAILED)


@app.command()
def pulls(
    gone: Annotated[
        str | None, typer.Option(help="A pull whose copy was deleted as a whole, manifest and all: note that it is.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who has which copy, and what must still be erased from it after a withdrawal."""
    with stores(_RUN_IT_AGAIN) as parts:
        from flows.candidates import lake_of

        live = lake_of(parts).live()
        if gone is not None:
            for each in places_of_copy(parts, gone):  # an id of another line, and nobody would ask for that copy again
                raise CopyInTheWay(f"The copy of that pull lies in {each} still. Delete all of it first.")
            with parts.records.transaction() as connection:
                mark_gone(connection, gone, parts.clock())
        with parts.records.reading() as connection:  # it may be long, and others wait for their turn to write
            found = list_pulls(connection)
        if as_json:
            more = [{"rows": each.rows, "must_go": each.must_go(live)} for each in found]
            show_json([each.model_dump(mode="json") | facts for each, facts in zip(found, more, strict=True)])
            return
        rows = [
            (
                f"{each.started_at:%Y-%m-%d %H:%M}",
                each.recipient,
                each.industry,
                each.kind,
                each.rows,
                sum(each.must_go(live).values()) or "",
                each.place,
                each.pull_id,
            )
            for each in found
        ]
        columns = ("taken (UTC)", "for", "industry", "as", "images", "must go", "where", "pull")
        show_table(columns, rows, "Nobody has pulled a copy.")


@app.command()
def stats(
    industry: AnyIndustry = None,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet to this PNG file.")] = None,
    images: Annotated[int, typer.Option(min=1, max=200, help="How many candidates are on it.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Show what lies in the lake, by industry and week; with --sheet, some candidates to look at.

    MP and edges: the mean size in megapixels, and the mean edge_uncertainty. same, alike: exact and near duplicates.
    """
    with stores(_RUN_IT_AGAIN) as parts:
        from flows.candidates import lake_of
        from lake.stats import look_at, weekly
        from portal.contact_sheet import TILE, contact_sheet

        lake = lake_of(parts)
        tag = parse_industry(industry) if industry else None
        weeks = weekly(lake, tag)
        if as_json:
            show_json([dataclasses.asdict(each) for each in weeks])
        else:
            columns = ("industry", "week", "customers", "images", "MP", "edges", "same", "alike")
            rows = [
                (
                    each.industry,
                    each.week,
                    each.grants,
                    each.images,
                    f"{each.megapixels:.1f}",
                    f"{each.edge_uncertainty:.2f}",
                    each.duplicates,
                    each.near_duplicates,
                )
                for each in weeks
            ]
            show_table(columns, rows, "No candidate has a live permission behind it.")
        if sheet is not None and weeks:
            sheet.write_bytes(contact_sheet(look_at(lake, tag, images, TILE)))
            tell(f"A contact sheet of live candidates is in {sheet}. Delete it when you have looked at it.")
        elif sheet is not None:  # what it showed when somebody looked before was taken back
            sheet.unlink(missing_ok=True)


@app.command()
def audit(industry: AnyIndustry = None, as_json: AsJson = False) -> None:
    """Read every file with two independent readers, and compare them with each other and with the records."""
    with stores(_RUN_IT_AGAIN) as parts:
        from flows.candidates import lake_of
        from lake.audit import audit as audit_lake

        lake = lake_of(parts)
        with progress_bar("Reading twice") as bar:
            found = audit_lake(lake, parse_industry(industry) if industry else None, bar.show)
        if as_json:
            show_json(dataclasses.asdict(found))
        else:
            faults = so_many(len(found.faults), "fault")
            say(f"{so_many(found.files, 'file')}, {so_many(found.rows, 'candidate')}, {faults}.")
            for key, fault in found.faults:
                say(f"  {key}: {fault}", highlight=False)
        if found.faults:
            raise typer.Exit(SOME_FAILED)


@app.command()
def compact(as_json: AsJson = False) -> None:
    """Merge small files of one customer into larger ones. Run it at night; readers notice nothing."""
    with stores(_RUN_IT_AGAIN) as parts:
        from flows.compact import compact as compact_flow

        with engine.running(parts):
            done = compact_flow()
        if as_json:
            show_json(dataclasses.asdict(done))
        else:
            merged = f"{so_many(done.files, 'file')} became {done.merged}"
            say(f"{merged}; {so_many(done.rows, 'candidate')}, {done.bytes / 1e6:.1f} MB.")


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = map(float, text.split(","))
    except ValueError:
        raise UserError("Write shares as three numbers, as in 80,10,10.") from None
    return train, validation, test
