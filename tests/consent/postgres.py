"""A real PostgreSQL server of the tests' own: started once for the run, on a free port of this machine, and stopped."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import psycopg

from store.records.database import open_records
from store.settings import Settings
from tests.ending import TIED, at_end
from tests.ports import free_port, wait_for

_numbers = itertools.count(1)


@cache
def server() -> str:
    """The server's address without a database name. It stops when the tests end."""
    return _start()


@cache
def standby() -> str:
    """The same of a server that another's place has not come to yet: it can be read, and has an empty database."""
    return f"postgresql+psycopg://{_start('standby.signal')}/postgres"


def _start(*signals: str) -> str:
    programs = _programs()
    home = Path(tempfile.mkdtemp(prefix="bgbatch-pg-", dir="/tmp"))
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(home, user.pw_uid, user.pw_gid)
    run = {"cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if user is not None:
        run |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, port = home / "data", free_port()
    initdb = [programs / "initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C"]
    subprocess.run(initdb, check=True, **run)
    for name in signals:
        (data / name).touch()
    options = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={home}", "fsync=off")
    said = [f"-c{option}" for option in options]
    process = subprocess.Popen([*TIED, programs / "postgres", "-D", data, *said], **run)

    def stop() -> None:
        process.send_signal(signal.SIGQUIT)  # at once
        process.wait()
        shutil.rmtree(home, ignore_errors=True)

    at_end(stop)
    wait_until_started(port, process)
    return f"tests@127.0.0.1:{port}"


def wait_until_started(port: int, process: subprocess.Popen[bytes]) -> None:
    """It listens before it has started, and says so."""
    wait_for(port, process)
    is_ready = [_programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while (answer := subprocess.run(is_ready, check=False).returncode) == 1:
        time.sleep(0.05)
    assert answer == 0, "PostgreSQL did not start"


def new_database(like: str = "template1") -> str:
    """An SQLAlchemy URL of a database like that one: by itself, without a table."""
    name = f"records{next(_numbers)}"
    with psycopg.connect(f"postgresql://{server()}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
    return f"postgresql+psycopg://{server()}/{name}"


def current_database() -> str:
    """Of one with empty records at the current schema: to migrate each test's own took longer than most tests."""
    return new_database(_migrated())


@cache
def _migrated() -> str:
    url = new_database()
    open_records(Settings(records_url=url)).engine.dispose()
    return url.rpartition("/")[2]


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    path = shutil.which("initdb")
    if path is None:
        raise RuntimeError("PostgreSQL is not installed: see deploy/test-packages.txt")
    return Path(path).parent


def _unprivileged_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None
