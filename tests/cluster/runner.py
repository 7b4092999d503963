"""The process that runs one batch on the cluster, as a flow runner does: `python -m tests.cluster.runner BATCH`."""

from __future__ import annotations

import sys

import ray
from sqlalchemy.exc import SQLAlchemyError

from flows import steps
from flows.parts import open_parts
from schemas.clock import system_clock
from schemas.errors import BgbatchError
from schemas.ids import BatchId
from store.settings import Settings
from tests.cluster.rehearsal import RehearsalActor
from workers.placement import connect, places
from workers.pool import Pool


def main(batch_id: BatchId) -> None:
    """Run it, or what is left of it; a fault of ours is one line."""
    try:
        parts = open_parts(Settings(), system_clock)
        connect(parts.settings)
        pool = Pool(parts.settings, 1, RehearsalActor, most=places(parts.settings))
        steps.cut(parts, batch_id, steps.plan(parts, batch_id), pool.run)
        steps.finish(parts, batch_id)
    except BgbatchError as fault:
        sys.exit(f"{fault.code}: {fault}")
    except SQLAlchemyError as fault:  # as the command line says it
        sys.exit(f"records_fault: {type(fault).__name__}")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(BatchId(sys.argv[1]))
