"""The reconcile flow: compare the lake with the ledger every 10 minutes; whatever has no live grant behind it goes."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows import reconciling
from flows.parts import current_parts
from flows.unforeseen import without_its_text
from lake.erase import Reconciled
from schemas.counting import so_many


@flow(name="reconcile", persist_result=False)
def reconcile() -> Reconciled:
    """Erase what may not be in the lake. Raises `StoreFault`; the next run goes on."""
    report = reconcile_lake()
    grants = so_many(len(report.receipts), "grant")
    page = f"# Reconcile: {so_many(report.objects, 'lake file')} erased, {grants} wholly erased"
    page += f"; {so_many(report.lost, 'lake file')} gone without a withdrawal" if report.lost else ""
    create_markdown_artifact(page, key="reconcile", description="What the last reconcile erased")
    return report


@task(name="reconcile-lake", retries=2, retry_delay_seconds=5, persist_result=False)
@without_its_text
def reconcile_lake() -> Reconciled:
    """Compare and erase on the parts in use."""
    return reconciling.reconcile(current_parts())
