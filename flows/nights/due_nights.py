"""The flows of a night and of all that are due, and deployments that start nights by the clock on a Prefect server."""

from __future__ import annotations

import os

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows.lease import new_holder
from flows.nights import steps as night_steps
from flows.nights.worker import Job, Worker
from flows.parts import Parts, current_parts, using
from flows.process_batch import process_batch
from flows.unforeseen import without_its_text
from schemas.batch import Counts
from schemas.ids import BatchId
from store.records import schedules
from store.records.nights import Night
from store.records.schedules import Schedule


def worker() -> Worker:
    """A process that cuts on Ray and shows its pages as artifacts."""
    return Worker(new_holder(), os.urandom, _process, _publish)


@flow(name="night", flow_run_name="night {schedule_id}", persist_result=False)
def night(schedule_id: str, out_of_turn: bool = False) -> list[str]:
    """Run what is due of one schedule, once, or go on with what was interrupted. Returns the states of its nights."""
    return _night(schedule_id, out_of_turn)


@without_its_text
def _night(schedule_id: str, out_of_turn: bool) -> list[str]:
    parts = current_parts()
    with parts.records.reading() as connection:
        schedule = schedules.find(connection, schedule_id)
    job = Job(parts, schedule, worker())
    if out_of_turn:
        ran = night_steps.run_now(job)
        return [] if ran is None else [ran.state]
    return [each.state for each in night_steps.run_schedule(job)]


@flow(name="due-nights", persist_result=False)
def due_nights() -> list[Night]:
    """Look after all schedules once: for a cron job, or a service, without a Prefect server."""
    return _due_nights()


@without_its_text
def _due_nights() -> list[Night]:
    return night_steps.run_due(current_parts(), worker())


def deployment(schedule: Schedule) -> RunnerDeployment:
    """What starts a schedule's nights on a Prefect server. A start that finds nothing due ends at once."""
    made = night.to_deployment(
        name=schedule.schedule_id,
        parameters={"schedule_id": schedule.schedule_id},
        schedule=Cron(schedule.cron, timezone=schedule.timezone),
        paused=schedule.paused_at is not None,
        concurrency_limit=1,
        tags=["night"],
    )
    assert isinstance(made, RunnerDeployment)
    return made


def deployments(parts: Parts) -> list[RunnerDeployment]:
    """One for each schedule: give them to `prefect.serve`."""
    with parts.records.reading() as connection:
        return [deployment(each) for each in schedules.list_all(connection)]


def _process(parts: Parts, batch_id: BatchId) -> Counts:
    with using(parts):
        return process_batch(batch_id)


def _publish(key: str, page: str) -> None:
    create_markdown_artifact(page, key=key, description="A night of a schedule")
