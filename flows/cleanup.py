"""The cleanup flow: purge what is due, sweep what engines leave, look for canaries. Every 10 minutes.

Killed anywhere, the next run finishes.
"""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from sqlalchemy.exc import SQLAlchemyError

from flows.canary import look_for_canaries
from flows.cleaning import code_of, purge
from flows.parts import current_parts, parts_to_clean
from schemas.counting import so_many
from schemas.errors import BgbatchError, EngineFault, StoreFault
from store.purging.engine_history import forget_runs
from store.purging.places import ENGINE_LIFE, prefect_folder, ray_folder
from store.purging.purge import PurgeReport
from store.purging.ray_sessions import sweep_sessions

_SHOWN = 200


@flow(name="cleanup", persist_result=False)
def cleanup() -> PurgeReport:
    """Purge expired batches and strays.

    Raises `StoreFault` for what is wrong, `EngineFault` for Ray's and Prefect's share, after purging all that can be.
    """
    troubles = current_parts(parts_to_clean).troubles
    report = purge_what_is_due()
    not_swept = ""
    swept = forgotten = 0
    try:
        swept, forgotten = sweep_engines()
    except Exception as trouble:  # noqa: BLE001 - the purge is done, and canaries are to be looked for
        not_swept = type(trouble).__name__
    found: dict[str, list[str]] = {}
    try:
        found = look_for_our_canaries()
    except (StoreFault, SQLAlchemyError) as trouble:  # what the purge found wrong is to be said all the same
        report.faults.append(code_of(trouble))
    page = _page(report, swept, forgotten, found)
    try:
        create_markdown_artifact(page, key="cleanup", description="What the last cleanup deleted")
    except Exception as trouble:  # noqa: BLE001 - the same
        not_swept = not_swept or type(trouble).__name__
    if report.faults or found:
        report.faults += [EngineFault.code] if not_swept else []
        raise StoreFault(
            f"{so_many(len(report.faults), 'fault')} ({', '.join(sorted(set(report.faults)))}); all else was purged. "
            f"Canaries found after their deadline: {len(found)}. "
            + "".join(f"{each} " for each in troubles if isinstance(each, BgbatchError))
            + "Mend the store or the records; the next cleanup tries again."
        )
    if not_swept:
        raise EngineFault(
            f"What was due is purged ({so_many(len(report.receipts), 'batch')}, without a fault). What came after it "
            f"of Ray and Prefect failed ({not_swept}): dead sessions, old runs or the report. Look at both under "
            "BGBATCH_HOME."
        )
    return report


@task(name="purge", retries=2, retry_delay_seconds=5, persist_result=False)
def purge_what_is_due() -> PurgeReport:
    """Carry out one purge on the parts in use."""
    return purge(current_parts())


@task(name="sweep-engines", persist_result=False)
def sweep_engines() -> tuple[int, int]:
    """Delete the folders of dead Ray sessions, and what Prefect remembers for too long. Returns how many of each."""
    parts = current_parts()
    return sweep_sessions(ray_folder()), forget_runs(prefect_folder(parts.settings), parts.clock() - ENGINE_LIFE)


@task(name="look-for-canaries", persist_result=False)
def look_for_our_canaries() -> dict[str, list[str]]:
    """Canaries of ours that are somewhere after their deadline, by batch id: the names of the places."""
    found = look_for_canaries(current_parts())
    return {batch_id: names for batch_id, names in found.items() if names}


def _page(report: PurgeReport, swept: int, forgotten: int, found: dict[str, list[str]]) -> str:
    oldest = f"{report.oldest_at:%Y-%m-%d %H:%M} UTC" if report.oldest_at else "nothing is left"
    lines = [
        f"# Cleanup: {so_many(len(report.receipts), 'batch')} purged, {so_many(report.strays, 'stray')}, "
        f"{so_many(len(report.faults), 'fault')}",
        "",
        f"{so_many(report.objects, 'object')} and {so_many(report.bytes, 'byte')} deleted; "
        f"{so_many(report.refusals, 'refusal')}, each tried again. "
        f"Oldest byte left: {oldest}. Clock skew {report.skew.total_seconds():.0f} s. "
        f"{so_many(swept, 'dead Ray session')} swept, {so_many(forgotten, 'row')} of Prefect's forgotten. "
        f"Canaries found after their deadline: {len(found)}.",
        "",
        *(f"- canary {batch_id}: {', '.join(names)}" for batch_id, names in found.items()),
        "",
        "| batch | objects | bytes | hours before the deadline |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {each.subject} | {each.objects} | {each.bytes} | {each.margin_seconds / 3600:.2f} |"
        for each in report.receipts[:_SHOWN]
    ]
    if len(report.receipts) > _SHOWN:
        lines.append(f"\n… and {len(report.receipts) - _SHOWN} more: `bgbatch receipts`.")
    return "\n".join(lines)
