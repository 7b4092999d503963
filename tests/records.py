"""Homes and databases with records at the current schema: to migrate each test's own took longer than most tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from store.records.database import open_records
from store.settings import Settings


def at_home(home: Path, records_url: str = "", **settings: object) -> Settings:
    """Settings of a home whose own records, if it is to have any, are there, empty and current."""
    if not records_url and not (home / "records.db").exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "records.db").write_bytes(_empty_records())
    return Settings(home=home, records_url=records_url, **settings)  # type: ignore[arg-type]


@cache
def _empty_records() -> bytes:
    with TemporaryDirectory() as home:
        open_records(Settings(home=Path(home))).engine.dispose()
        return Path(home, "records.db").read_bytes()
