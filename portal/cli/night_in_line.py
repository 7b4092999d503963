"""A night that is run by hand beside a busy dispatcher: cut there when its turn comes, delivered and reported here."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

from flows.nights import steps as night_steps
from flows.nights.worker import Job
from flows.parts import Parts
from store.records import line, nights
from store.records.batches import get_batch
from store.records.nights import Night, NightState
from store.records.schedules import Schedule

_LOOK_EVERY = 5.0  # seconds
_MOST_QUIET = 3  # looks; between two turns a dispatcher has no lease for a moment


def left_to_dispatchers(job: Job, tell_that_it_waits: Callable[[], None]) -> Night | None:
    """Run a night, or the rest of one, whose photos others cut. None where no dispatcher is at work.

    Whoever cut it here would start Ray and a network of its own beside theirs. Its worker is one that cuts nothing. A
    night that is still running is given back when there has been no dispatcher for a while. Whoever removes its
    schedule ends it.
    """
    parts, night = job.parts, None
    if _is_one_at_work(parts):
        night = night_steps.run_now(job) or _running(parts, job.schedule)
    quiet, is_new = 0, True
    while night is not None and night.state is NightState.RUNNING and quiet < _MOST_QUIET:
        if _waits(parts, night) and not is_new:  # a second dispatcher may have no work
            tell_that_it_waits()
        is_new = False
        sleep(_LOOK_EVERY)
        night = night_steps.fresh(parts, night)
        quiet = 0 if _is_one_at_work(parts) or night.is_held(parts.clock()) else quiet + 1
        if night.state is NightState.RUNNING:  # else `bgbatch serve`, which looks after it too, was first
            night = night_steps.go_on(job, night) or night_steps.fresh(parts, night)
    if night is not None:
        _waits(parts, night)
    return night


def _running(parts: Parts, schedule: Schedule) -> Night | None:
    """The night that another process works on just now."""
    with parts.records.reading() as connection:
        return nights.running(connection, schedule.schedule_id)


def _waits(parts: Parts, night: Night) -> bool:
    """Show how far its batch is, and say whether that stands in line while nobody has it."""
    if night.batch_id is None:
        return False
    now = parts.clock()
    with parts.records.reading() as connection:
        parts.watch(get_batch(connection, night.batch_id).counts)
        return night.batch_id in {each.batch_id for each in line.in_line(connection, now)}


def _is_one_at_work(parts: Parts) -> bool:
    with parts.records.reading() as connection:
        return line.has_dispatcher_at_work(connection, parts.clock())
