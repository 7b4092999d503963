"""What a schedule has done, as keyed hashes: HMAC-SHA256 under a key that the schedule has to itself.

The hash of a photo's path says which photo; the hash of its size, its version and its cutout's name says which state of
it. Nobody without the key can test a guess, and removing the schedule removes key and hashes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, insert, select

from schemas.ids import Randomness
from store.records.schedules import ScheduleId
from store.records.tables import fingerprints

_AT_ONCE = 400
"""Rows per statement: SQLite binds at most 32,766 values, older ones 999."""


def new_key(randomness: Randomness) -> str:
    """A key for one schedule."""
    return randomness(32).hex()


def path_hmac(key: str, path: str) -> str:
    """Names a photo by its path."""
    return _hmac(key, "path", path)


def content_hmac(key: str, size: int, version: str, name: str) -> str:
    """Names a photo's state. `name`: what its cutout is called, so that a cutout with a new name is made again."""
    return _hmac(key, "content", f"{size}\0{version}\0{name}")


def known(connection: Connection, schedule_id: ScheduleId) -> dict[str, str]:
    """What has been done: path's hash -> content's hash."""
    columns = (fingerprints.c.path_hmac, fingerprints.c.content_hmac)
    rows = connection.execute(select(*columns).where(fingerprints.c.schedule_id == schedule_id))
    return {row.path_hmac: row.content_hmac for row in rows}


def remember(connection: Connection, schedule_id: ScheduleId, done: Mapping[str, str]) -> None:
    """Note photos as done in this state."""
    forget(connection, schedule_id, done)
    rows = [{"schedule_id": schedule_id, "path_hmac": path, "content_hmac": state} for path, state in done.items()]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(insert(fingerprints), rows[start : start + _AT_ONCE])


def forget(connection: Connection, schedule_id: ScheduleId, paths: Iterable[str]) -> None:
    """Forget these photos."""
    gone = list(paths)
    for start in range(0, len(gone), _AT_ONCE):
        those = fingerprints.c.path_hmac.in_(gone[start : start + _AT_ONCE])
        connection.execute(delete(fingerprints).where(fingerprints.c.schedule_id == schedule_id, those))


def _hmac(key: str, kind: str, text: str) -> str:
    message = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
    return hmac.new(bytes.fromhex(key), message, hashlib.sha256).hexdigest()
