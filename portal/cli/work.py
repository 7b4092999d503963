"""work: cutting what stands in line, on this machine or on a cluster's."""

from __future__ import annotations

from contextlib import suppress

from flows import engine
from flows.lease import new_holder
from flows.parts import Parts
from portal.cli.children import until_stopped
from portal.cli.terminal import stores
from schemas.batch import Counts
from schemas.ids import BatchId


def work() -> None:
    """Take submitted batches from the line, by fair share among accounts, and process them. Runs until stopped."""
    with stores() as parts:
        ending = until_stopped()
        from prefect.exceptions import TerminationSignal

        from flows.dispatch import Dispatcher
        from flows.process_batch import process_batch

        def process(watched: Parts, batch_id: BatchId) -> Counts:
            with engine.running(watched):  # from the first batch on; of no use to one who waits for it
                return process_batch(batch_id)

        with suppress(TerminationSignal):  # SIGTERM in the middle of a flow; the lease is given back by then
            Dispatcher(parts, new_holder(), process, ending).run()
