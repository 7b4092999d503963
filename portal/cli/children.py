"""Programs that `serve` keeps running: each is started again when it ends by itself, and all end with `serve`."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from flows.engine import alone
from schemas.clock import Clock
from store.settings import OUR_PASSWORDS

_log = logging.getLogger("bgbatch")

_RESTART_AFTER = 5.0
_GOOD_END = 60  # seconds
_PREFECT_STARTS_WITHIN = 120.0
_PORTS = range(20_000, 32_000)  # the system gives those above to whoever asks for any; Ray's workers have those below
_TIED = """
import ctypes, os, signal, sys
getattr(ctypes.CDLL(None), "prctl", lambda *_: None)(1, signal.SIGINT)  # PR_SET_PDEATHSIG, where there is Linux
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where a script has started all of it with `&`
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes the program, which then ends, too, when this process is killed and can end nothing any more."""
BGBATCH = (sys.executable, "-c", "from portal.cli.start import main; main()")


@dataclass
class State:
    """How a child stands. `since`: when it was started, None while it is down; `restarts`: how often it died."""

    name: str
    since: datetime | None = None
    restarts: int = 0


class Children:
    """Keeps them. `ending`, once set, ends all of them. `states`: where it says how each stands."""

    def __init__(self, ending: threading.Event, clock: Clock, states: list[State]) -> None:
        self._ending = ending
        self._clock = clock
        self._keepers: list[threading.Thread] = []
        self._states = states

    def keep(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, quiet: bool = False
    ) -> None:
        """Start a program and keep it running."""
        state = State(name)
        self._states.append(state)
        output = subprocess.DEVNULL if quiet else None
        keeper = threading.Thread(target=self._run, args=(state, command, os.environ | (env or {}), output), name=name)
        keeper.start()
        self._keepers.append(keeper)

    def join(self) -> None:
        """Wait until all have ended. Set `ending` first."""
        for keeper in self._keepers:
            keeper.join()

    def _run(self, state: State, command: Sequence[str], env: Mapping[str, str], output: int | None) -> None:
        while not self._ending.is_set():
            process = subprocess.Popen(
                (sys.executable, "-c", _TIED, str(os.getpid()), *command),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            state.since = self._clock()
            while process.poll() is None and not self._ending.wait(0.5):
                pass
            if process.poll() is None:
                _end(process, state.name)
            elif not self._ending.is_set():
                state.since, state.restarts = None, state.restarts + 1
                _log.error("%s ended with code %s and is started again", state.name, process.returncode)
                self._ending.wait(_RESTART_AFTER)


def until_stopped() -> threading.Event:
    """Set by SIGTERM, Ctrl-C or a closed window: what is under way is brought to a good end.

    A shell that starts a program with `&` has it ignore SIGINT; this handler hears it all the same.
    """
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup`
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # by whomever that is heard
    return ending


def keep_prefect(children: Children, ending: threading.Event) -> str:
    """One Prefect server for all the others, on the loopback address; returns its address once it answers, or soon."""
    port = _free_port()
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    # Its environment is open to other processes of our user, Ray's workers among them, and it needs none of these.
    env = {"PREFECT_API_URL": "", **dict.fromkeys(OUR_PASSWORDS, "")}
    with alone():
        children.keep("prefect server", command, env, quiet=True)
        for _ in range(int(_PREFECT_STARTS_WITHIN / 0.5)):
            if ending.wait(0.5) or _answers(address):
                break
    return address


def _answers(address: str) -> bool:
    import requests  # slow to import: only `serve` asks

    try:
        return requests.get(f"{address}/api/health", timeout=2).ok
    except requests.RequestException:
        return False


def _free_port() -> int:
    """One that nobody listens on, and that nobody is given by chance in the seconds until the server has taken it."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _end(process: subprocess.Popen[bytes], name: str) -> None:
    process.send_signal(signal.SIGINT)  # Prefect breaks a flow off on SIGTERM; this lets it end its step
    try:
        process.wait(timeout=_GOOD_END)
    except subprocess.TimeoutExpired:
        _log.error("%s did not end within %d seconds and was killed", name, _GOOD_END)
        process.kill()
        process.wait()
