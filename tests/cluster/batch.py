"""A batch of tiny photos, each of a colour of its own, so that a cutout tells whose it is; and the count at the end."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache

import httpx
import pyarrow.parquet as pq
from PIL import Image

from consent import ledger
from flows import reconciling, steps
from flows.cleaning import cleaning
from flows.parts import Parts, open_parts
from flows.receive import seal, stamp_batch
from lake.admission import admitted_files
from schemas.batch import BatchState, Item
from schemas.clock import ShiftedClock
from schemas.ids import AccountId, BatchId, GrantId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Done, results_by_number
from store.purging.cleanup import clean_up
from store.purging.receipts import list_receipts, verify_receipts
from store.records.batches import get_batch
from store.transient.transient_store import cutout_key, source_key

_LEVELS, _STEP = 13, 19
MOST_PHOTOS = _LEVELS**3
Resend = Callable[[], None]
"""Is called when the portal did not answer, before the same is sent again."""


@cache
def photo(number: int) -> bytes:
    """64 × 48 pixels of the colour that stands for the number."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), colour(number)).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def colour(number: int) -> tuple[int, int, int]:
    rest, low = divmod(number - 1, _LEVELS)
    high, middle = divmod(rest, _LEVELS)
    return (high * _STEP + 10, middle * _STEP + 10, low * _STEP + 10)


def is_of(cutout: bytes, number: int) -> bool:
    """Whether it was cut from that photo."""
    with Image.open(io.BytesIO(cutout)) as image:
        pixel = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    return all(abs(a - b) < _STEP // 2 for a, b in zip(pixel, colour(number), strict=True))


def send(parts: Parts, account: AccountId, industry: Industry | None, photos: int) -> BatchId:
    """A sealed batch, in line."""
    stamp = stamp_batch(parts, account, industry, CutoutOptions())
    numbers = range(1, photos + 1)

    def put(number: int) -> None:
        parts.transient.write(stamp, source_key(stamp.batch_id, number), photo(number))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put, numbers))
    seal(parts, stamp, [Item(number=n, path=f"VIN{n}/1.jpg", size=len(photo(n))) for n in numbers])
    return stamp.batch_id


def send_to_the_portal(
    client: httpx.Client, industry: Industry | None, photos: int, at: int, kill: Callable[[], None], resend: Resend
) -> BatchId:
    """The same through the REST API, as a customer's program does that sends again what was not answered.

    `kill` is called once `at` photos are sent.
    """

    def ask(method: str, path: str, **more: object) -> httpx.Response:
        for _ in range(50):
            try:
                answer = client.request(method, path, **more)  # type: ignore[arg-type]
            except httpx.TransportError:
                resend()
                continue
            if answer.status_code < 500:
                return answer.raise_for_status()
            resend()
        raise AssertionError(f"the portal never answered {method} {path}")

    key = {"Idempotency-Key": f"trial-{at}-{photos}-{id(kill)}"}
    opened = ask("POST", "/v1/batches", json={"industry": industry} if industry else {}, headers=key)
    batch_id = opened.json()["batch_id"]
    for number in range(1, photos + 1):
        if number == at:
            kill()
        # paths in the order of the numbers: items are numbered by path at the seal
        ask("PUT", f"/v1/batches/{batch_id}/items/VIN{number:05d}.jpg", content=photo(number))
    ask("POST", f"/v1/batches/{batch_id}/seal")
    return BatchId(batch_id)


def count(parts: Parts, batch_id: BatchId, photos: int) -> None:
    """Each photo has exactly one result and the cutout that was made of it; the records say the same."""
    results = results_by_number(parts.transient.reports(batch_id))
    assert sorted(results) == list(range(1, photos + 1)), "photos without a result, or with one too many"
    failed = Counter(each.code for each in results.values() if not isinstance(each, Done))
    assert not failed, f"photos failed: {failed}"

    def look(number: int) -> bool:
        return is_of(parts.transient.read(cutout_key(batch_id, number, ".png")), number)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(look, results)), "a photo got another's cutout"
    assert steps.plan(parts, batch_id).shards == []
    with parts.records.transaction() as connection:
        record = get_batch(connection, batch_id)
    assert record.state is BatchState.COMPLETED
    assert (record.counts.items, record.counts.done, record.counts.failed) == (photos, photos, 0)


def count_candidates(parts: Parts, batch_id: BatchId, grant_id: GrantId | None, photos: int, is_live: bool) -> None:
    """Under a live grant each photo is in the lake once; under any other circumstances none is to be read."""
    reconciling.reconcile(parts)
    with parts.records.transaction() as connection:
        ledger.verify(connection)
        live = [grant.grant_id for grant in ledger.live_grants(connection)]
        files = admitted_files(connection, None, live)
    items: Counter[int] = Counter()
    for file in files:
        assert file.grant_id == grant_id
        rows = pq.read_table(io.BytesIO(parts.lake.read(file.key)), columns=["batch_id", "item"]).to_pylist()
        items.update(row["item"] for row in rows if row["batch_id"] == batch_id)
    assert items == (dict.fromkeys(range(1, photos + 1), 1) if is_live else {}), "candidates are not what may be there"


def purge(parts: Parts, batch_id: BatchId) -> None:
    """A day later, with every grant withdrawn, nothing is left anywhere, and one receipt says so."""
    later = open_parts(parts.settings, ShiftedClock(timedelta(hours=24)))
    try:
        report = clean_up(cleaning(later))
        assert report.faults == []
        assert not list(later.transient.objects.walk("")), "something is left of a batch"
        reconciling.reconcile(later)
        assert not list(later.lake.walk("")), "something is left in the lake"
        with later.records.transaction() as connection:
            known = list_receipts(connection)
        verify_receipts(known)
        assert sum(each.subject == batch_id for each in known) == 1
    finally:
        later.records.engine.dispose()
