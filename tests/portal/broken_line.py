"""A line between browser and server that can be cut: in the middle of what is being sent, and for as long as wanted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_TO_BE_READ = 2.0
"""Seconds that a server has to read what came: of a connection that has ended, uvicorn hands out nothing more."""


class BrokenLine:
    """Passes connections on to the server. `cut_after`: bytes from the browser until it cuts all of them by itself."""

    def __init__(self, server: str) -> None:
        self._server = (urlsplit(server).hostname, urlsplit(server).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._is_down = False
        self.cut_after: int | None = None
        self.was_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Break what there is, and let nothing through."""
        self._is_down = True
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.was_cut.set()

    def mend(self) -> None:
        self._is_down = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                browser, _ = self._listener.accept()
            except OSError:
                return
            if self._is_down:
                browser.close()
                continue
            server = socket.create_connection(self._server)
            self._open |= {browser, server}
            threading.Thread(target=self._pass, args=(browser, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, browser, False), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                if counts and self.cut_after is not None:
                    self.cut_after -= len(data)
                    if self.cut_after <= 0:
                        self.cut_after = None
                        other.sendall(data[: len(data) // 2])
                        time.sleep(_TO_BE_READ)
                        self.cut()
                        break
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            self._open.discard(each)


@contextmanager
def broken_line(server: str) -> Iterator[BrokenLine]:
    line = BrokenLine(server)
    yield line
    line.close()
