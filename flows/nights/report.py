"""What is told of a night, in the morning or in mid-night: numbers, codes and times, no name. Pure.

The customer's own place also gets names (`Details`), because there they are at home.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from schemas import errors
from schemas.record import Moment, Record
from store.records.nights import Night, NightState
from store.records.schedules import Schedule

NOT_DELIVERED = errors.NotDelivered.code
NOT_DONE = "not_done"
NAMES_NOT_DELIVERED = "names_not_delivered"
OVERLAP = "overlap"
SCHEDULE_REMOVED = "schedule_removed"
REPORTS = "bgbatch-reports"
"""The folder of the customer's place that the reports with names lie in."""
_WORDS = {
    errors.PastDeadline.code: "The batch's purge time came before these were delivered; the next night does them.",
    NOT_DONE: "The night ended before these were begun; the next night does them.",
    NOT_DELIVERED: "The customer's place did not take these cutouts: a name too long for it, or a closed folder. "
    "The report beside the cutouts says which; the next night tries again.",
    NAMES_NOT_DELIVERED: "The customer's place did not take the report with names. It goes under "
    f"`{REPORTS}`: let that be written too; the next night tells the names of its own.",
    errors.SourceEmpty.code: "The source held no photo at all, though it did before. Nothing was changed or forgotten.",
    errors.BadOptions.code: "A night cuts only what is new or changed, so the photo that the schedule's bg_image names "
    "is not among its photos. Remove the schedule, and add one with bg_color or without a background.",
    OVERLAP: "The night before was still going.",
    SCHEDULE_REMOVED: "The schedule was removed before these were delivered. What was delivered stays.",
}


class Failure(Record):
    """Why photos, or a whole night, failed. `photos` is 0 when it is about the night itself."""

    code: str
    photos: int
    sentence: str


class Report(Record):
    """The morning's report: see `store.records.nights.Night` for the numbers."""

    night_id: str
    schedule_id: str
    state: NightState
    due_at: Moment
    started_at: Moment
    ended_at: Moment | None
    batch_id: str | None
    found: int
    new: int
    changed: int
    skipped: int
    deleted: int
    left_out: int
    done: int
    delivered: int
    failures: tuple[Failure, ...]
    deadline_at: Moment | None
    estimate_at: Moment | None
    was_late: bool

    @property
    def has_names(self) -> bool:
        """Whether there are names to tell: of photos that failed, or of cutouts without a photo."""
        of_photos = {NOT_DELIVERED, *(kind.code for kind in _kinds(errors.ItemError))}
        codes = {each.code for each in self.failures}
        failed = bool(codes & of_photos)
        was_told = self.ended_at is not None and self.state is not NightState.CANCELLED
        was_told = was_told and NAMES_NOT_DELIVERED not in codes
        return was_told and (failed or self.deleted > 0)

    @property
    def names_at(self) -> str:
        """Where the names lie, in the customer's own place."""
        return details_key(self.due_at, self.schedule_id)


class Details(Record):
    """What lies in the customer's own place beside the cutouts, with names."""

    report: Report
    failed: tuple[tuple[str, str, str], ...]
    cutouts_without_photo: tuple[str, ...]


def details_key(due_at: datetime, schedule_id: str) -> str:
    """With its schedule: two may deliver into one place at the same time, in two formats."""
    return f"{REPORTS}/{due_at:%Y-%m-%dT%H-%M-%S}-{schedule_id}.json"


def report_of(night: Night, now: datetime) -> Report:
    """The report of a night as it stands."""
    failures = tuple(
        Failure(code=code, photos=photos, sentence=sentence_of(code)) for code, photos in sorted(night.failures.items())
    )
    shared = {name: getattr(night, name) for name in Report.model_fields if name in Night.model_fields}
    is_late = night.deadline_at is not None and (night.ended_at or now) > night.deadline_at
    return Report.model_validate(shared | {"failures": failures, "was_late": is_late})


def sentence_of(code: str) -> str:
    """A code in words."""
    return _WORDS.get(code) or _sentences().get(code, "A fault of ours; the operator finds it in the log.")


def markdown(report: Report, schedule: Schedule) -> str:
    """The report as a page."""
    zone = ZoneInfo(schedule.timezone)
    lines = [
        f"# Night of {report.due_at.astimezone(zone):%Y-%m-%d %H:%M} ({schedule.timezone}): {report.state}",
        "",
        "| photos | |",
        "|---|---:|",
        f"| in the source | {report.found} |",
        f"| new | {report.new} |",
        f"| changed | {report.changed} |",
        f"| skipped, because unchanged | {report.skipped} |",
        f"| gone from the source | {report.deleted} |",
        f"| files left out: no photo by their name, or a path that no cutout can have | {report.left_out} |",
        f"| cut out | {report.done} |",
        f"| delivered | {report.delivered} |",
        "",
        f"Schedule {schedule.schedule_id}, batch {report.batch_id or 'none'}. Begun at "
        f"{report.started_at.astimezone(zone):%H:%M:%S}, {_end(report, zone)}.",
    ]
    if report.deadline_at is not None:
        how = "missed" if report.was_late else "kept" if report.ended_at else "not reached yet"
        lines.append(f"Deadline {report.deadline_at.astimezone(zone):%Y-%m-%d %H:%M}: {how}.")
    if report.failures:
        lines += ["", "| failed because | photos | |", "|---|---:|---|"]
        lines += [f"| {each.code} | {each.photos or ''} | {each.sentence} |" for each in report.failures]
    if report.has_names and schedule.deliver is not None:
        lines += ["", f"Which they are: `{report.names_at}`, beside the cutouts."]
    return "\n".join(lines) + "\n"


def _end(report: Report, zone: ZoneInfo) -> str:
    if report.ended_at is not None:
        return f"ended at {report.ended_at.astimezone(zone):%H:%M:%S}"
    if report.estimate_at is not None:
        return f"expected to end at {report.estimate_at.astimezone(zone):%H:%M:%S}"
    return "still going"


def _sentences() -> dict[str, str]:
    """The first line of what `schemas.errors` says of each code."""
    return {kind.code: (kind.__doc__ or "").partition("\n")[0] for kind in _kinds(errors.BgbatchError)}


def _kinds(kind: type[errors.BgbatchError]) -> Iterator[type[errors.BgbatchError]]:
    for each in kind.__subclasses__():
        yield from _kinds(each)
    yield kind
