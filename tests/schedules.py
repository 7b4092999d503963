"""A schedule as many tests want one, before it is added."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from schemas.ids import AccountId
from schemas.options import CutoutOptions
from store.records import schedules
from store.records.schedules import Overlap, Schedule


def nightly(
    account_id: AccountId, created_at: datetime, randomness: Callable[[int], bytes] = os.urandom, **told: object
) -> Schedule:
    """At two o'clock UTC, of a bucket, delivered nowhere and without a deadline, but for what is `told`."""
    plain = Schedule(
        schedule_id=schedules.new_schedule_id(randomness),
        account_id=account_id,
        cron="0 2 * * *",
        timezone="UTC",
        source="s3://acme/photos",
        deliver=None,
        industry=None,
        options=CutoutOptions(),
        overlap=Overlap.SKIP,
        deadline_minutes=None,
        fingerprint_key="0" * 64,
        created_at=created_at,
    )
    return plain.model_copy(update=told)
