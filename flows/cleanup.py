"""The cleanup flow: purge what is due. Every 10 minutes; killed anywhere, the next run finishes."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows.parts import current_parts
from schemas.errors import StoreFault
from store.purge import Purge, PurgeReport


@flow(name="cleanup", persist_result=False)
def cleanup() -> PurgeReport:
    """Purge expired batches and strays. Raises `StoreFault` when a deletion failed, after trying all others."""
    report = purge_what_is_due()
    create_markdown_artifact(_page(report), key="cleanup", description="What the last cleanup deleted")
    if report.faults:
        raise StoreFault(
            f"{len(report.faults)} deletions failed ({', '.join(sorted(set(report.faults)))}); all else was purged. "
            "Mend the store or the records; the next cleanup tries again."
        )
    return report


@task(name="purge", retries=2, retry_delay_seconds=5, persist_result=False)
def purge_what_is_due() -> PurgeReport:
    """Carry out one purge on the parts in use."""
    parts = current_parts()
    return Purge(parts.transient.objects, parts.records, parts.settings.purge_after, parts.clock).run()


def _page(report: PurgeReport) -> str:
    lines = [
        f"# Cleanup: {len(report.receipts)} batches purged, {report.strays} strays, {len(report.faults)} faults",
        "",
        "| batch | objects | bytes | hours before the deadline |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {each.subject} | {each.objects} | {each.bytes} | {each.margin_seconds / 3600:.2f} |"
        for each in report.receipts
    ]
    return "\n".join(lines)
