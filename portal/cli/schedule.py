"""schedule add|list|show|retime|run|run-due|pause|resume|remove|report: a marketplace's nights."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from flows import engine
from flows.nights import steps as night_steps
from flows.nights.report import Report, markdown, report_of
from flows.nights.worker import Job
from flows.parts import Parts
from portal import schedules as known
from portal.cli.account import AccountOrOnly, account_or_only
from portal.cli.children import until_stopped
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
from portal.cli.first_look import what_is_amiss
from portal.cli.named_night import HOW, named_night
from portal.cli.night_in_line import left_to_dispatchers
from portal.cli.night_rounds import keep_looking, look_after_all, send_webhooks, worker_in_line
from portal.cli.place import address_of
from portal.cli.terminal import (
    AsJson,
    ItsIndustry,
    exit_codes,
    exit_for,
    get_ready,
    progress_bar,
    say,
    show_fields,
    show_json,
    show_table,
    stores,
    tell,
)
from schemas.batch import BatchState
from schemas.counting import so_many
from schemas.errors import NotFound, UserError
from schemas.industries import parse_industry
from schemas.options import Channels, Format, Size, in_words
from store.outside import allowed
from store.records import nights, schedules
from store.records.nights import Night, NightState
from store.records.people import find_account, list_accounts
from store.records.schedules import Overlap, Schedule

app = typer.Typer(no_args_is_help=True, help="Runs that start themselves: only new and changed photos, every night.")
_GO_ON = "What is done stays done: the same command goes on with the night."
Id = Annotated[str, typer.Argument(help="Schedule id, as `bgbatch schedule list` shows it.")]


@app.command()
def add(
    context: typer.Context,
    cron: Annotated[str, typer.Option(help='When: five fields, such as "0 2 * * *".')],
    source: Annotated[str, typer.Option(help="The photos: s3://bucket/prefix or a folder. They stay there.")],
    deliver: Annotated[
        str | None,
        typer.Option(
            help="Where cutouts go: s3://bucket/prefix or a folder; in one format, no other schedule's. "
            "Without it: they stay in each night's batch, until it is gone."
        ),
    ] = None,
    timezone: Annotated[str, typer.Option(help="The clock that cron means.")] = "UTC",
    industry: ItsIndustry = None,
    account: AccountOrOnly = None,
    overlap: Annotated[str, typer.Option(help="When the run before is still going: skip, or wait.")] = Overlap.SKIP,
    deadline: Annotated[int | None, typer.Option(help="Minutes after its time by which a run must be over.")] = None,
    format: TheFormat = Format.PNG,
    channels: TheChannels = Channels.RGBA,
    size: TheSize = Size.AUTO,
    bg_color: BgColor = None,
    crop: Crop = False,
    crop_margin: CropMargin = "0px",
    refine: Refine = False,
    despill: Despill = False,
    shadow: Shadow = False,
    as_json: AsJson = False,
) -> None:
    """Add a schedule. Naming its places here is the operator's leave for the account to use them."""
    with exit_codes():
        wanted = known.Wanted(
            cron=cron,
            timezone=timezone,
            source=address_of(source),
            deliver=address_of(deliver) if deliver else None,
            industry=parse_industry(industry) if industry is not None else None,
            options=options_in(context),
            overlap=_overlap(overlap),
            deadline_minutes=deadline,
        )
        parts = get_ready()
        with parts.records.transaction() as connection:
            account_id = account_or_only(connection, account)
            for place in filter(None, (wanted.source, wanted.deliver)):
                allowed.allow(connection, account_id, place, parts.clock())
            made = known.add(connection, account_id, wanted, parts.settings, parts.clock, os.urandom)
        _show(parts, made, as_json)
        if (amiss := what_is_amiss(parts, made)) is not None:
            tell(f"{amiss} If its address is wrong, remove the schedule and add it anew.")


@app.command("list")
def list_all(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None, as_json: AsJson = False
) -> None:
    """List the schedules, when each runs next, and how its last night ended."""
    with stores() as parts:
        with parts.records.reading() as connection:
            owner = find_account(connection, account).account_id if account else None
            found = schedules.list_all(connection, owner)
            last = {each.schedule_id: nights.of_schedule(connection, each.schedule_id, 1) for each in found}
            names = {each.account_id: each.name for each in list_accounts(connection)}
        if as_json:
            show_json([_fields(parts, each) for each in found])
            return
        is_of_several = len({each.account_id for each in found}) > 1
        rows = [
            (
                each.schedule_id,
                *([names[each.account_id]] if is_of_several else []),
                each.source,
                in_words(each.options),
                f"{each.cron} {each.timezone}",
                f"{due:%Y-%m-%d %H:%M}" if (due := known.next_at(each, parts.clock())) else "paused",
                last[each.schedule_id][0].state if last[each.schedule_id] else "",
            )
            for each in found
        ]
        first = "`bgbatch schedule add` makes the first; its `--help` says what it takes."
        whose = ("account",) if is_of_several else ()
        show_table(("schedule", *whose, "source", "cutouts", "when", "next (UTC)", "last night"), rows, first)


@app.command()
def show(
    schedule: Id,
    most: Annotated[int, typer.Option("--nights", min=0, max=10_000, help="How many of its last nights.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show one schedule and its last nights, by their times on the schedule's own clock."""
    with stores() as parts:
        _show(parts, _find(parts, schedule), as_json, most)


@app.command()
def run(schedule: Id, as_json: AsJson = False) -> None:
    """Run a night now, out of turn, or the rest of one that was interrupted; then print its report."""
    with stores(_GO_ON) as parts:
        found = _find(parts, schedule)
        with progress_bar("Removing backgrounds") as bar:

            @cache  # once
            def tell_that_it_waits() -> None:
                tell(
                    "Other batches are being cut just now, so this night stands in line for its turn. Ctrl-C leaves it "
                    "there; the same command goes on with it."
                )

            job = Job(replace(parts, watch=bar.watch), found, worker_in_line())
            last = left_to_dispatchers(job, tell_that_it_waits)
            if last is None or last.state is NightState.RUNNING:
                last = _run_here(job.parts, found, last)
            if last.state is NightState.RUNNING:  # a dispatcher without work was quicker to take its batch
                last = left_to_dispatchers(job, tell_that_it_waits) or last
        send_webhooks(parts)
        _print_report(report_of(last, parts.clock()), found, as_json)
        exit_for(BatchState(last.state) if last.state is not NightState.SKIPPED else BatchState.COMPLETED)


@app.command("run-due")
def run_due(
    watch: Annotated[bool, typer.Option("--watch", help="Look every 20 seconds until stopped.")] = False,
    in_line: Annotated[
        bool, typer.Option("--in-line", help="Leave the cutting to `bgbatch work`, by fair share; deliver and report.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run what is due, once each, and send webhooks. For a cron job each minute, or with --watch as a service."""
    with stores(_GO_ON) as parts:
        if watch and as_json:
            raise UserError("With --watch nothing is printed. Leave --json out, or look once: without --watch.")
        if watch:  # a night that is being delivered is brought to its end first
            keep_looking(parts, in_line, until_stopped())
            return
        touched = look_after_all(parts, in_line=in_line)
        send_webhooks(parts)
        if as_json:
            show_json([report_of(each, parts.clock()).model_dump(mode="json") for each in touched])
        else:
            say(f"Nights begun, gone on with, or skipped: {len(touched)}.")


@app.command()
def retime(
    schedule: Id,
    cron: Annotated[str | None, typer.Option(help='When: five fields, such as "0 2 * * *".')] = None,
    timezone: Annotated[str | None, typer.Option(help="The clock that cron means.")] = None,
    overlap: Annotated[str | None, typer.Option(help="When the run before is still going: skip, or wait.")] = None,
    deadline: Annotated[int | None, typer.Option(help="Minutes after its time; 0 for none.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Give a schedule other times; what is not said stays. What it has done it still knows, so no photo is done again.

    A night that is going goes on. For other places or cutouts, remove the schedule and add another.
    """
    with exit_codes():
        times: dict[str, object] = {"cron": cron, "timezone": timezone}
        times["overlap"] = _overlap(overlap) if overlap is not None else None
        said = {name: value for name, value in times.items() if value is not None}
        if deadline is not None:
            said["deadline_minutes"] = deadline or None
        if not said:
            raise UserError("Say what is to be otherwise: --cron, --timezone, --overlap or --deadline.")
        parts = get_ready()
        with parts.records.transaction() as connection:
            schedule_id = schedules.find(connection, schedule).schedule_id
            changed = known.retime(connection, schedule_id, parts.clock, **said)
        _show(parts, changed, as_json)


@app.command()
def pause(schedule: Id) -> None:
    """Start no more nights; one that is going goes on."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            schedules.pause(connection, schedules.find(connection, schedule).schedule_id, parts.clock())
        say(f"Paused: no night starts by itself before `bgbatch schedule resume {schedule}`.")


@app.command()
def resume(schedule: Id) -> None:
    """Start nights again. What was missed meanwhile is not caught up; the next night finds all changes anyway."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            schedules.resume(connection, schedules.find(connection, schedule).schedule_id, parts.clock())
        due = known.next_at(_find(parts, schedule), parts.clock())
        say(f"Not paused: the next night starts at {due:%Y-%m-%d %H:%M} UTC.")


@app.command()
def remove(schedule: Id) -> None:
    """Forget a schedule with its fingerprints and their key. A night that is going is over, its batch called off."""
    with stores() as parts:
        with parts.records.transaction() as connection:
            over = known.remove(connection, schedules.find(connection, schedule).schedule_id, parts.clock)
        for night in over:
            say(
                f"A night was going. It is over: {night.delivered} of its "
                f"{so_many(night.new + night.changed, 'photo')} delivered"
                + (f", and batch {night.batch_id} was called off." if night.batch_id is not None else ".")
            )


@app.command()
def report(
    schedule: Id,
    night: Annotated[str | None, typer.Option(help=f"Which: {HOW}. Without it: the last that was not skipped.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the report of a night: what was new, changed, skipped, deleted, failed and why.

    Any night can be named, however long ago: `--night 2026-11-25`.
    `bgbatch schedule show SCHEDULE --nights 100` lists the last hundred.
    """
    with stores() as parts:
        found = _find(parts, schedule)
        one = named_night(parts.records, found, night) if night is not None else _last(parts, found)
        _print_report(report_of(one, parts.clock()), found, as_json)


def _run_here(parts: Parts, schedule: Schedule, begun: Night | None) -> Night:
    """`begun`: the night to go on with; by now another may have brought it to its end, and none is begun after it."""
    from flows.nights.due_nights import night

    with engine.running(parts):
        states = night(schedule.schedule_id, out_of_turn=begun is None)
    if begun is not None:
        return night_steps.fresh(parts, begun)
    if not states:
        raise UserError(
            "Another process works on this schedule's night, or died within the last minute. Look at `bgbatch schedule "
            "show`; if nothing works on it, give this command again after a minute."
        )
    return _last(parts, schedule)


def _overlap(text: str) -> Overlap:
    if text not in set(Overlap):
        raise UserError(f"There is no such overlap policy. Choose one of: {', '.join(Overlap)}.")
    return Overlap(text)


def _find(parts: Parts, schedule_id: str) -> Schedule:
    with parts.records.reading() as connection:
        return schedules.find(connection, schedule_id)


def _last(parts: Parts, schedule: Schedule) -> Night:
    with parts.records.reading() as connection:
        night = nights.last(connection, schedule.schedule_id)
    if night is None:
        raise NotFound("The schedule has had no night yet. `bgbatch schedule run` starts one now.")
    return night


def _fields(parts: Parts, schedule: Schedule) -> dict[str, object]:
    fields = schedule.model_dump(mode="json", exclude={"fingerprint_key"})
    due = known.next_at(schedule, parts.clock())
    return fields | {"next_at": due}


def _show(parts: Parts, schedule: Schedule, as_json: bool, most: int = 0) -> None:
    """`most`: how many of its nights."""
    with parts.records.reading() as connection:
        found = nights.of_schedule(connection, schedule.schedule_id, most)
    reports = [report_of(each, parts.clock()) for each in found]
    if as_json:
        show_json(_fields(parts, schedule) | {"nights": [each.model_dump(mode="json") for each in reports]})
        return
    fields = _fields(parts, schedule)
    shown = ("schedule_id", "cron", "timezone", "source", "deliver", "industry", "overlap", "deadline_minutes")
    words = {name.replace("_", " "): fields[name] for name in shown}
    for name, moment in (("next at", fields["next_at"]), ("paused at", schedule.paused_at)):
        words[name] = f"{moment:%Y-%m-%d %H:%M} UTC" if isinstance(moment, datetime) else None
    words["cutouts"] = in_words(schedule.options)
    show_fields({name: "none" if value is None else value for name, value in words.items()})
    if reports:
        columns = ("state", "found", "new", "changed", "skipped", "deleted", "done", "delivered")
        zone = ZoneInfo(schedule.timezone)
        rows = [
            (f"{each.due_at.astimezone(zone):%Y-%m-%dT%H:%M}", *(getattr(each, name) for name in columns))
            for each in reports
        ]
        show_table(("night", *columns), rows)


def _print_report(report: Report, schedule: Schedule, as_json: bool) -> None:
    if as_json:
        show_json(report.model_dump(mode="json"))
    else:
        say(markdown(report, schedule), highlight=False)
