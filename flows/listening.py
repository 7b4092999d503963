"""Where a server of ours listens, so that its small answers do not wait."""

from __future__ import annotations

import socket


def listen(host: str, port: int = 0) -> socket.socket:
    """A listener for uvicorn; at port 0, on a free port. Raises `OSError`.

    asyncio sets TCP_NODELAY only where a socket was made with the protocol's number, which this one was not. Without
    it the body of each answer waits until the caller has acknowledged its head: 40 ms.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts has it, too
    return listener
