"""Callers who begin and say no more are not waited for; all others are, however long they and we take."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
import uvicorn

from flows.listening import listen
from portal.cli.children import BGBATCH
from portal.cli.connections import TimedConnection
from tests.api.conftest import Desk
from tests.ports import free_port

HEAD = b"POST / HTTP/1.1\r\nHost: portal\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
def connect() -> Iterator[Callable[[], socket.socket]]:
    """To a server that answers once it has the whole body, and has slept for longer than it waits for a caller."""

    class Hasty(TimedConnection):
        HEAD_WITHIN, SILENCE, LOOK_EVERY = 2.0, 2.0, 0.05

    async def app(scope: dict, receive: Callable, send: Callable) -> None:
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(2.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listener = listen("127.0.0.1")
    config = uvicorn.Config(app, http=Hasty, lifespan="off", timeout_keep_alive=60, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    callers: list[socket.socket] = []

    def connected() -> socket.socket:
        callers.append(socket.create_connection(listener.getsockname(), timeout=60))
        return callers[-1]

    yield connected
    for caller in callers:
        caller.close()
    server.should_exit = True
    thread.join()


def answer(caller: socket.socket) -> bytes:
    """Up to its end, or all that there is before the connection was closed."""
    had = b""
    while not had.endswith(b"\r\n\r\nok") and (more := caller.recv(1000)):
        had += more
    return had


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: por", HEAD, HEAD + b"12"])
def test_who_begins_a_request_and_says_no_more_is_not_waited_for(
    connect: Callable[[], socket.socket], begun: bytes
) -> None:
    caller = connect()
    caller.sendall(begun)
    assert answer(caller) == b""


def test_an_answer_may_take_its_time_and_after_it_the_next_head_may_not(connect: Callable[[], socket.socket]) -> None:
    caller = connect()
    caller.sendall(HEAD + b"1234")
    assert answer(caller).startswith(b"HTTP/1.1 200")
    caller.sendall(HEAD + b"1234")
    assert answer(caller).startswith(b"HTTP/1.1 200")
    caller.sendall(HEAD[:20])
    assert answer(caller) == b""


def test_a_body_that_comes_slowly_is_waited_for(connect: Callable[[], socket.socket]) -> None:
    caller = connect()
    caller.sendall(HEAD)
    for letter in b"1234":
        time.sleep(0.7)
        caller.sendall(bytes([letter]))
    assert answer(caller).startswith(b"HTTP/1.1 200")


def test_some_hundred_callers_who_say_no_more_shut_nobody_out(desk: Desk) -> None:
    port = free_port()
    words = shlex.join([*BGBATCH, "serve", "--portal-only", "--port", str(port)])
    serving = subprocess.Popen(["bash", "-c", f"ulimit -Sn 200; exec {words}"], stderr=subprocess.DEVNULL)
    with ExitStack() as until_then, httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=120) as client:
        until_then.callback(serving.terminate)
        client.get(f"http://127.0.0.1:{port}/healthz")
        for _ in range(300):
            until_then.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)).sendall(HEAD[:20])
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=20).status_code == 200
    assert serving.wait(timeout=60) == 0
