"""Many submitters at once, as the internet makes them: they ask twice, break off, send again, and wait when told to.

Each knows what it sent. `Crowd.send` plays them against a portal on the loopback address; `count` then looks into the
stores for every photo's bytes. Nothing here is a copy of the portal's own bookkeeping.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from flows.parts import Parts
from schemas.batch import BatchState
from schemas.ids import AccountId, BatchId
from schemas.results import results_by_number
from store.records.api_keys import create_key
from store.records.batches import get_batch, list_batches
from store.records.people import create_account

_PHOTO_BYTES = (2_000, 20_000)
_LONGEST_WAIT = 5.0  # seconds between two tries, whatever Retry-After says: a test must end


@dataclass
class Sent:
    """What one submitter knows of one batch: the digest of each photo by path."""

    batch_id: str
    account_id: AccountId
    photos: dict[str, str]


@dataclass
class Told:
    """What the crowd saw: answers by status, waits that it was told to make, seconds of each photo's upload."""

    statuses: Counter[int] = field(default_factory=Counter)
    waits: int = 0
    broken_off: int = 0
    asked_twice: int = 0
    in_parts: int = 0
    lost_connections: int = 0
    seconds: list[float] = field(default_factory=list)


class Crowd:
    """`submitters` at once, each with its own account, `batches` one after the other, `photos` in each."""

    def __init__(self, parts: Parts, submitters: int, batches: int, photos: int) -> None:
        self._batches = batches
        self._photos = photos
        self._random = random.Random(1)
        self._keys: list[tuple[AccountId, str]] = []
        self.sent: list[Sent] = []
        self.told = Told()
        with parts.records.transaction() as connection:
            for number in range(submitters):
                email = f"o@{number}.example"
                account, person = create_account(connection, f"Dealer {number}", email, parts.clock(), os.urandom)
                _, key = create_key(connection, account, person, "load", parts.clock(), os.urandom)
                self._keys.append((account, key))

    async def send(self, address: str) -> None:
        """All of them, until each has sealed all of its batches."""
        limits = httpx.Limits(max_connections=len(self._keys), max_keepalive_connections=len(self._keys))
        async with httpx.AsyncClient(base_url=f"{address}/v1", limits=limits, timeout=300, trust_env=False) as client:
            await asyncio.gather(*(self._submitter(client, account, key) for account, key in self._keys))

    async def _submitter(self, client: httpx.AsyncClient, account: AccountId, key: str) -> None:
        for number in range(self._batches):
            batch = await self._open(client, key)
            photos = {}
            for photo in range(self._photos):
                path, data = f"VIN{number}/{photo}.jpg", self._random.randbytes(self._random.randint(*_PHOTO_BYTES))
                photos[path] = hashlib.sha256(data).hexdigest()
                began = time.perf_counter()
                await self._upload(client, key, batch, path, data)
                self.told.seconds.append(time.perf_counter() - began)
            for _ in range(self._times()):
                await self._ask(client, key, "POST", f"/batches/{batch}/seal")
            self.sent.append(Sent(batch, account, photos))

    async def _open(self, client: httpx.AsyncClient, key: str) -> str:
        """Asked once or twice at the same moment, with one idempotency key: one batch."""
        headers = {"Idempotency-Key": self._random.randbytes(8).hex()}
        asked = [
            self._ask(client, key, "POST", "/batches", headers=headers, json={"industry": "automotive"})
            for _ in range(self._times())
        ]
        answers = await asyncio.gather(*asked)
        (batch,) = {answer.json()["batch_id"] for answer in answers}
        return str(batch)

    async def _upload(self, client: httpx.AsyncClient, key: str, batch: str, path: str, data: bytes) -> None:
        chance = self._random.random()
        place = f"/batches/{batch}/items/{path}"
        if chance < 0.05:
            self.told.in_parts += 1
            await self._upload_in_parts(client, key, batch, path, data)
            return
        if chance < 0.10:
            self.told.broken_off += 1
            try:
                length = {"Content-Length": str(len(data)), "x-api-key": key}
                await client.put(place, content=_breaking_off(data), headers=length)
            except (_BrokenOff, httpx.HTTPError):
                pass
        for _ in range(2 if chance > 0.95 else 1):
            await self._ask(client, key, "PUT", place, content=data)

    async def _upload_in_parts(self, client: httpx.AsyncClient, key: str, batch: str, path: str, data: bytes) -> None:
        metadata = {
            "Upload-Length": str(len(data)),
            "Upload-Metadata": f"filename {base64.b64encode(path.encode()).decode()}",
        }
        made = await self._ask(client, key, "POST", f"/batches/{batch}/uploads", headers=metadata)
        place, half = made.headers["Location"].removeprefix("/v1"), len(data) // 2
        stands = 0
        while stands < len(data):
            offset = {"Upload-Offset": str(stands), "Content-Type": "application/offset+octet-stream"}
            part = data[stands:half] if stands < half else data[stands:]
            await self._ask(client, key, "PATCH", place, headers=offset, content=part, or_else=409)
            stands = int((await self._ask(client, key, "HEAD", place)).headers["Upload-Offset"])

    async def _ask(
        self, client: httpx.AsyncClient, key: str, method: str, path: str, or_else: int = 0, **sent: object
    ) -> httpx.Response:
        """One request, made again for as long as the answer says so. `or_else`: a refusal that may be, too."""
        headers = {"x-api-key": key, **sent.pop("headers", {})}  # type: ignore[dict-item]
        while True:
            try:
                answer = await client.request(method, path, headers=headers, **sent)  # type: ignore[arg-type]
            except httpx.TransportError:  # an idle connection is closed at that moment, or the portal died
                self.told.lost_connections += 1
                await asyncio.sleep(0.1)
                continue
            self.told.statuses[answer.status_code] += 1
            if answer.is_success or answer.status_code == or_else:
                return answer
            is_twin = answer.status_code == 409 and answer.json()["code"] == "still_answering"
            assert is_twin or answer.status_code == 429, f"{method} {answer.status_code}: {answer.text}"
            self.told.waits += 1
            wait = float(answer.headers["Retry-After"]) * (0.5 + self._random.random())
            await asyncio.sleep(min(wait, _LONGEST_WAIT))

    def _times(self) -> int:
        if self._random.random() < 0.2:
            self.told.asked_twice += 1
            return 2
        return 1


class _BrokenOff(Exception):
    """The connection went away in mid-photo."""


async def _breaking_off(data: bytes) -> AsyncIterator[bytes]:
    yield data[: len(data) // 2]
    raise _BrokenOff


@dataclass(frozen=True)
class Count:
    """What lies in the stores: all of these must be equal to what was sent."""

    batches: int
    photos: int
    results: int


def count(parts: Parts, sent: list[Sent]) -> Count:
    """Find every photo that was sent, by its bytes, once; and nothing else. Raises `AssertionError`."""
    with parts.records.transaction() as connection:
        known = {record.stamp.batch_id: record for record in list_batches(connection, None, limit=len(sent) * 2)}
    assert set(known) == {each.batch_id for each in sent}, "a batch was lost, or opened twice"
    photos = results = 0
    for each in sent:
        record = known[BatchId(each.batch_id)]
        assert record.account_id == each.account_id
        manifest = parts.transient.manifest(record.stamp.batch_id)
        found = {
            item.path: hashlib.sha256(parts.transient.source(manifest.stamp, item)).hexdigest()
            for item in manifest.items
        }
        assert len(found) == len(manifest.items), "a photo stands in its batch twice"
        assert found == each.photos, "a photo was lost, doubled or changed"
        by_number = results_by_number(parts.transient.reports(record.stamp.batch_id))
        assert set(by_number) <= set(range(1, len(found) + 1))
        photos, results = photos + len(found), results + len(by_number)
    keys = (each.key for each in parts.transient.objects.walk(""))
    sources = sum("/source/" in key and ".partial-" not in key for key in keys)  # what a killed portal was writing
    assert sources == photos, "bytes lie in the store that belong to no photo"
    return Count(len(known), photos, results)


def have_ended(parts: Parts, sent: list[Sent]) -> bool:
    """Whether every batch is completed."""
    with parts.records.transaction() as connection:
        return all(get_batch(connection, each.batch_id).state is BatchState.COMPLETED for each in sent)
