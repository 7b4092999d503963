"""Nobody waits 40 ms for each small answer of a server of ours."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable

import pytest
import uvicorn

from flows import engine
from flows.listening import listen
from portal.cli import serve
from portal.demo import story


async def _answers(scope: dict, receive: Callable, send: Callable) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def took(listener: socket.socket, answers: int) -> float:
    """Seconds for so many answers over one connection, the quickest of three times."""
    server = uvicorn.Server(uvicorn.Config(_answers, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    caller, times = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1]), []
    for _ in range(3):
        began = time.monotonic()
        for _ in range(answers):
            caller.request("GET", "/")
            assert caller.getresponse().read() == b"ok"
        times.append(time.monotonic() - began)
    caller.close()
    server.should_exit = True
    thread.join(timeout=60)
    return min(times)


def test_the_body_of_an_answer_does_not_wait_for_its_heads_receipt() -> None:
    assert took(listen("127.0.0.1"), 25) < 25 * 0.03


@pytest.mark.parametrize("server", [engine, serve, story])
def test_all_servers_of_ours_listen_so(server: object) -> None:
    assert server.listen is listen  # type: ignore[attr-defined]
    assert getattr(server, "_listen", listen)("127.0.0.1", 0).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
