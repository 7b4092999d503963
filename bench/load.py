"""A crowd at the front door: 200 submitters, 20,000 small photos over REST, while a worker takes batches from the line.

`python -m bench.load --write` writes its section of bench/RESULTS.md. One photo in twenty is broken off and sent again,
one in twenty comes in two parts, one in twenty comes twice; one request in five to open or seal is made twice. A photo
that is lost, doubled or changed, a batch opened twice, or a portal that grows, ends it with an error.
`--records postgresql+psycopg://…` takes another database than SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import quantiles

from bench.results import table, write_section
from flows.parts import open_parts
from schemas.clock import system_clock
from store.settings import Settings
from tests.api.crowd import Crowd, count, have_ended
from tests.api.stand import memory_of, portal, running

_MAY_GROW = 1.1


def main() -> None:
    """Play it, count, and say what was seen."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--submitters", type=int, default=200)
    asked.add_argument("--batches", type=int, default=2)
    asked.add_argument("--photos", type=int, default=50, help="in each batch")
    asked.add_argument("--records", default="", help="an SQLAlchemy URL; without it SQLite")
    asked.add_argument("--write", action="store_true", help="into bench/RESULTS.md")
    how = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="bgbatch-load-") as folder:
        rows = _play(Path(folder) / "home", how)
    lines = table(("what", "measured"), rows)
    print("\n".join(lines))
    if how.write:
        write_section(f"Load, {'PostgreSQL' if how.records else 'SQLite'}", lines)


def _play(home: Path, how: argparse.Namespace) -> list[tuple[str, str]]:
    env = {"BGBATCH_RECORDS_URL": how.records} if how.records else {}
    parts = open_parts(Settings(home=home, records_url=how.records), system_clock)
    crowd = Crowd(parts, how.submitters, how.batches, how.photos)
    expected = how.submitters * how.batches * how.photos
    work = "from tests.api.stand import work; work()"
    with portal(home, **env) as (address, process), running(home, work, **env), memory_of(process) as memory:
        began = time.monotonic()
        asyncio.run(crowd.send(address))
        took = time.monotonic() - began
        portal_seconds = _cpu_seconds(process.pid)
        until = time.monotonic() + 120
        while not have_ended(parts, crowd.sent):
            assert time.monotonic() < until, home.with_suffix(".log").read_text()[-2000:]
            time.sleep(1)
        ended = time.monotonic() - began
    found = count(parts, crowd.sent)
    assert (found.photos, found.results) == (expected, expected), found
    first, last = memory.thirds()
    assert last <= first * _MAY_GROW, f"the portal grew from {first:.0f} to {last:.0f} MB"
    told, cuts = crowd.told, quantiles(crowd.told.seconds, n=100)
    assert not any(status >= 500 for status in told.statuses)
    own = resource.getrusage(resource.RUSAGE_SELF)
    each = 1000 / expected
    statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(told.statuses.items()))
    waits = " / ".join(f"{cuts[percent - 1] * 1000:.0f}" for percent in (50, 95, 99))
    return [
        ("submitters, batches, photos", f"{how.submitters}, {found.batches}, {found.photos:,}"),
        ("lost, doubled, changed", "0, 0, 0"),
        ("requests", f"{sum(told.statuses.values()):,}: {statuses}"),
        ("broken off, in two parts, asked twice", f"{told.broken_off:,}, {told.in_parts:,}, {told.asked_twice:,}"),
        ("told to wait, and waited; connections lost", f"{told.waits:,}; {told.lost_connections:,}"),
        ("all photos sent; all batches completed, s", f"{took:.0f}; {ended:.0f}"),
        ("photos per second", f"{expected / took:.0f}"),
        ("a photo's upload, p50 / p95 / p99 ms, waits included", waits),
        ("CPU-ms per photo, portal", f"{portal_seconds * each:.1f}"),
        ("CPU-ms per photo, the crowd itself", f"{(own.ru_utime + own.ru_stime) * each:.1f}"),
        ("portal's memory, most in first / last third, MB", f"{first:.0f} / {last:.0f}"),
    ]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
