"""PostgreSQL and an S3 server of the trials' own, as processes that can be killed with -9 and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from store.s3 import S3
from store.settings import Settings
from tests.consent.postgres import _programs, _unprivileged_user
from tests.store.rclone import KEY, SECRET, free_port, wait_for


class Server:
    """A process on a port of this machine, with data that outlive it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def as_user(self) -> dict[str, object]:
        return {}

    def start(self) -> None:
        with (self.home / "log").open("a") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.home, start_new_session=True, **self.as_user()
            )
        wait_for(self.port, self.process)

    def kill(self) -> None:
        """As a machine that loses power: with all its children, and no word."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Postgres(Server):
    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home.mkdir(parents=True)
        if (user := _unprivileged_user()) is not None:
            shutil.chown(home, user.pw_uid, user.pw_gid)
        who = ("-U", "trials", "-A", "trust", "-E", "UTF8", "--locale=C")
        initdb = [_programs() / "initdb", "-D", home / "data", *who]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd=home, **self.as_user())
        self.start()
        with psycopg.connect(f"postgresql://trials@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE records")

    def as_user(self) -> dict[str, object]:
        user = _unprivileged_user()
        return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def command(self) -> list[str]:
        (self.home / "data" / "postmaster.pid").unlink(missing_ok=True)  # of the one that was killed
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.home),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(_programs() / "postgres"), "-D", str(self.home / "data"), *options]

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://trials@127.0.0.1:{self.port}/records"

    def start(self) -> None:
        super().start()
        for _ in range(100):  # it listens before it has recovered
            try:
                psycopg.connect(f"postgresql://trials@127.0.0.1:{self.port}/postgres").close()
            except psycopg.OperationalError:
                subprocess.run(["sleep", "0.1"], check=True)
            else:
                return


class Objects(Server):
    def __init__(self, home: Path) -> None:
        super().__init__(home)
        (home / "buckets").mkdir(parents=True)
        (home / "rclone.conf").touch()
        self.start()
        S3("s3://trials", self.settings(Settings(home=home))).call("create_bucket")

    def command(self) -> list[str]:
        program = Path(sys.executable).with_name("rclone")
        serve = [str(program), "--config", str(self.home / "rclone.conf"), "serve", "s3"]
        where = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off"]
        return [*serve, *where, str(self.home / "buckets")]

    def settings(self, base: Settings) -> Settings:
        return base.model_copy(
            update={
                "s3_endpoint": f"http://127.0.0.1:{self.port}",
                "s3_key": KEY,
                "s3_secret": Settings(s3_secret=SECRET).s3_secret,
                "transient_url": "s3://trials/transient",
                "lake_url": "s3://trials/lake",
                "suppressions_url": "s3://trials/suppressions",
            }
        )
