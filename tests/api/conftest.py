"""The portal with its API on an empty home, two accounts with a key each, and a worker in this process."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from flows.parts import Parts, open_parts
from portal.web.app import create_app
from schemas.clock import Clock, system_clock
from schemas.ids import AccountId, BatchId
from schemas.results import ShardReport
from store.records.api_keys import create_key
from store.records.people import create_account
from store.records.sessions import create_sign_in_link
from store.settings import Settings
from tests.batches import run_batch
from tests.records import at_home
from workers.cutter import Cutter, open_cutter
from workers.plan import Shard
from workers.shard import process_shard


def jpeg(colour: str = "red", size: tuple[int, int] = (64, 48)) -> bytes:
    """A small photo: a square on another ground."""
    image = Image.new("RGB", size, "white")
    image.paste(colour, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    target = io.BytesIO()
    image.save(target, "JPEG")
    return target.getvalue()


@cache
def cutter(max_megabytes: float) -> Cutter:
    return open_cutter(Settings(home=Path("/nonexistent"), actors=1, max_megabytes=max_megabytes))


@dataclass
class Desk:
    """A portal, and what its customers use."""

    parts: Parts
    client: TestClient
    accounts: dict[str, tuple[AccountId, str]]
    links: dict[str, str]

    def call(self, method: str, path: str, who: str = "Acme", **sent: object) -> httpx.Response:
        headers = {"x-api-key": self.accounts[who][1], **sent.pop("headers", {})}  # type: ignore[dict-item]
        return self.client.request(method, f"/v1{path}", headers=headers, **sent)

    def open(self, who: str = "Acme", **wanted: object) -> str:
        answer = self.call("POST", "/batches", who, json=wanted)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["batch_id"])

    def send(self, files: dict[str, bytes], who: str = "Acme", **wanted: object) -> str:
        """Open, send, seal."""
        batch = self.open(who, **wanted)
        for path, data in files.items():
            assert self.call("PUT", f"/batches/{batch}/items/{path}", who, content=data).status_code == 201
        assert self.call("POST", f"/batches/{batch}/seal", who).status_code == 200
        return batch

    def work(self, batch: str) -> None:
        """Cut the batch in this process, with the real network."""
        cut_batch(self.parts, BatchId(batch))


def cut_batch(parts: Parts, batch: BatchId) -> None:
    run_batch(parts, batch, shards_of(parts))


def shards_of(parts: Parts) -> Callable[..., Iterator[ShardReport]]:
    def run(
        batch_id: BatchId,
        shards: Sequence[Shard],
        clock: Clock,
        keep: Callable[[ShardReport], None],
        stop: Callable[[], bool],
    ) -> Iterator[ShardReport]:
        manifest = parts.transient.manifest(batch_id)
        for shard in shards:
            if stop():
                return
            yield process_shard(parts.transient, cutter(parts.settings.max_megabytes), manifest, shard, clock)

    return run


def new_desk(home: Path, clock: Clock = system_clock, **settings: object) -> Desk:
    parts = open_parts(at_home(home, shard_items=2, **settings), clock)  # type: ignore[arg-type]
    app = create_app(parts.settings, parts.records, parts.transient, clock, os.urandom)
    accounts, links = {}, {}
    for name in ("Acme", "Bazaar"):
        with parts.records.transaction() as connection:
            account, person = create_account(connection, name, f"o@{name.lower()}.example", clock(), os.urandom)
            _, key = create_key(connection, account, person, "tests", clock(), os.urandom)
            links[name] = "/sign-in/" + create_sign_in_link(connection, person, clock(), os.urandom)
        accounts[name] = (account, key)
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    return Desk(parts, client, accounts, links)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = new_desk(tmp_path / "home")
    yield desk
    desk.parts.records.engine.dispose()
