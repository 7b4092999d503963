"""What Prefect remembers of runs on this machine, and when it is forgotten: runs, logs, artifacts, events.

A Prefect server vacuums itself (`flows.engine` sets how). The temporary one of an embedded start never lives long
enough, so its database file is cleaned here. It holds ids and numbers; forgetting them is tidiness, and a second lock.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

_OLD = (
    ("log", "timestamp"),
    ("artifact", "created"),
    ("artifact_collection", "updated"),
    ("task_run", "updated"),
    ("flow_run", "updated"),
    ("task_run_state", "timestamp"),
    ("flow_run_state", "timestamp"),
    ("events", "occurred"),
    ("event_resources", "occurred"),
)
"""Table and the column that tells how old a row is; children first."""


def forget_runs(home: Path, before: datetime) -> int:
    """Delete all that Prefect's own SQLite file holds from before then. Returns how many rows. No file: none."""
    file = home / "prefect.db"
    if not file.exists():
        return 0
    moment = before.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    deleted = 0
    with closing(sqlite3.connect(file, timeout=30)) as database:
        database.execute("PRAGMA secure_delete = ON")
        with database:
            known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, column in _OLD:
                if table in known:
                    deleted += database.execute(f"DELETE FROM {table} WHERE {column} < ?", (moment,)).rowcount
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # its log still holds what was deleted
    return deleted
