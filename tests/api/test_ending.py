"""The end of a portal: whoever is still sending is given some seconds, and holds it up no longer."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from flows.parts import open_parts
from schemas.clock import system_clock
from store.records.api_keys import create_key
from store.records.people import create_account
from tests.api.stand import portal
from tests.records import at_home


def test_an_upload_that_stands_still_does_not_hold_the_end_up(tmp_path: Path) -> None:
    parts = open_parts(at_home(tmp_path / "home"), system_clock)
    with parts.records.transaction() as connection:
        account, person = create_account(connection, "Acme", "o@acme.example", system_clock(), os.urandom)
        _, key = create_key(connection, account, person, "tests", system_clock(), os.urandom)
    with portal(tmp_path / "home") as (address, process):
        opened = httpx.post(f"{address}/v1/batches", json={}, headers={"x-api-key": key}, trust_env=False, timeout=60)
        put = f"PUT /v1/batches/{opened.json()['batch_id']}/items/1.jpg HTTP/1.1"
        head = f"{put}\r\nHost: portal\r\nx-api-key: {key}\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        line = socket.create_connection((urlsplit(address).hostname, urlsplit(address).port))
        line.sendall(head.encode())
        assert line.recv(12) == b"HTTP/1.1 100", "it waits for the photo"
        line.sendall(b"half of it")
        process.terminate()
    assert process.returncode == 0
    line.close()
    parts.records.engine.dispose()
