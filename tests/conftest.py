from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from store.logs import _OURS, Json, Text
from store.records.database import Records, open_records
from tests.consent.postgres import current_database
from tests.ending import end
from tests.records import at_home

# By itself Ray ends workers once 95 % of the machine's memory is taken, by whomever.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

# A shell that starts the tests with `&` has them ignore it, and some send it to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or drawing it, says how busy the machine is: by itself Hypothesis allows 200 milliseconds.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_sessionfinish() -> None:
    """Here and not at the exit: a process of pytest-xdist that takes over 10 s there is killed, and they live on."""
    end()


@pytest.fixture(autouse=True)
def environment_as_it_was() -> Iterator[None]:
    """A command that runs in this process names its home to Prefect there; the next test has another one."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command that runs in this process sets the log up for it; the next test has another stderr, and reads more."""
    loggers = [logging.getLogger(name) for name in (None, *_OURS)]
    levels, handlers = [each.level for each in loggers], loggers[0].handlers[:]
    yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)
    root = loggers[0]
    root.handlers = [each for each in root.handlers if not _is_ours(each)] + [
        each for each in handlers if _is_ours(each)
    ]


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Records]:
    """An empty, current database on PostgreSQL, for what SQLite does not have."""
    records = open_records(at_home(tmp_path, records_url=current_database()))
    yield records
    records.engine.dispose()


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, Text | Json)
