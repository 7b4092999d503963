"""Each part of a deployment as a real process that can be killed with -9 and started again with what it has on disk."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg

from store.objects.s3 import S3
from store.settings import Settings
from tests.cluster.network import HUB, children, is_gone, kill_all
from tests.consent.postgres import _programs, _unprivileged_user
from tests.ports import free_port, wait_for
from tests.store.rclone import KEY, SECRET

Environment = Callable[[], Mapping[str, str]]


class Server:
    """A process with a folder of its own, and what it says in a file there."""

    host = "127.0.0.1"

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def as_user(self) -> dict[str, object]:
        return {}

    def environment(self) -> Mapping[str, str]:
        return {}

    def start(self) -> None:
        with (self.home / "log").open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=os.environ | self.environment(),
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
                **self.as_user(),
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        wait_for(self.port, self.process, self.host)

    def says(self, lines: int = 20) -> str:
        """The end of what it said."""
        return "\n".join((self.home / "log").read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """As a machine that loses power: with all its children, and no word."""
        assert self.process is not None
        with suppress(ProcessLookupError):  # when it ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def is_down(self) -> bool:
        return self.process is None or self.process.poll() is not None


class Postgres(Server):
    def __init__(self, home: Path) -> None:
        super().__init__(home)
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

    def kill(self) -> None:
        """Each of its processes leads a session of its own, and would write on for a moment."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGSTOP)  # it starts no more of them
        rest = children(self.process.pid)
        super().kill()
        kill_all(lambda: [pid for pid in rest if not is_gone(pid)])

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://trials@127.0.0.1:{self.port}/records"

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        while not self.is_down:  # it listens before it has recovered
            try:
                psycopg.connect(f"postgresql://trials@127.0.0.1:{self.port}/postgres").close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return


class Objects(Server):
    """Where the hosts reach it, too."""

    host = HUB

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        (home / "buckets").mkdir()
        (home / "rclone.conf").touch()
        self.start()
        S3("s3://trials", self.settings(Settings(home=home))).call("create_bucket")

    def command(self) -> list[str]:
        program = Path(sys.executable).with_name("rclone")
        serve = [str(program), "--config", str(self.home / "rclone.conf"), "serve", "s3"]
        where = ["--addr", f"{HUB}:{self.port}", "--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "off"]
        return [*serve, *where, str(self.home / "buckets")]

    def settings(self, base: Settings) -> Settings:
        return base.model_copy(
            update={
                "s3_endpoint": f"http://{HUB}:{self.port}",
                "s3_key": KEY,
                "s3_secret": Settings(s3_secret=SECRET).s3_secret,
                "transient_url": "s3://trials/transient",
                "lake_url": "s3://trials/lake",
                "suppressions_url": "s3://trials/suppressions",
            }
        )


class Engine(Server):
    """Prefect's server, which answers only who knows its password."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.password = f"trials:{secrets.token_hex(16)}"
        self.start()

    def command(self) -> list[str]:
        prefect = str(Path(sys.executable).with_name("prefect"))
        return [prefect, "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_AUTH_STRING": self.password,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    @property
    def of_its_clients(self) -> Mapping[str, str]:
        return {"PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api", "PREFECT_API_AUTH_STRING": self.password}


class Portal(Server):
    """`bgbatch serve --portal-only`."""

    def __init__(self, home: Path, environment: Environment) -> None:
        super().__init__(home)
        self._environment = environment
        self.start()

    def command(self) -> list[str]:
        return [*_bgbatch(), "serve", "--portal-only", "--port", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return self._environment()

    def client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers={"x-api-key": key}, timeout=60)


class Runner(Server):
    """`bgbatch work`: takes batches from the line, and runs the flow of each."""

    def __init__(self, home: Path, environment: Environment) -> None:
        super().__init__(home)
        self._environment = environment
        self.start()

    def command(self) -> list[str]:
        return [*_bgbatch(), "work"]

    def environment(self) -> Mapping[str, str]:
        return {**self._environment(), "PYTHONFAULTHANDLER": "1"}

    def wait_until_ready(self) -> None:
        """It takes batches when it can."""

    def stacks(self) -> str:
        """Where each of its threads is. It does not survive that."""
        assert self.process is not None
        self.process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        return self.says(150)

    def last_word(self) -> str:
        """With what code it ended, or how."""
        assert self.process is not None
        if (self.process.returncode or 0) < 0:
            return f"killed by signal {-self.process.returncode}"
        lines = (self.home / "log").read_text(errors="replace").strip().splitlines()
        codes = [match.group(1) for line in lines[-40:] if (match := re.match(r"([a-z]+(?:_[a-z]+)+): ", line))]
        return codes[-1] if codes else "ended by itself"


def _bgbatch() -> list[str]:
    return [sys.executable, "-c", "from portal.cli.app import main; main()"]
