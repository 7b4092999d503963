"""The story of the demo, step by step, on real parts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import uvicorn

from flows import engine
from flows.candidates import lake_of
from flows.cleanup import cleanup
from flows.listening import listen
from flows.parts import Parts, open_parts, using
from flows.process_batch import process_batch
from flows.receive import stamp_batch
from flows.reconcile import reconcile
from lake.pull import Order, pull
from lake.query import Query
from lake.verify import verify
from portal.contact_sheet import contact_sheet
from portal.delivery import deliver, read_results
from portal.demo.people import DEALER, MARKETPLACE, Customer, write_photos
from portal.demo.visitor import Visitor
from portal.intake.copying import Copying
from portal.intake.folder import find_photos, upload
from portal.web.app import create_app
from schemas.batch import Counts, Stamp
from schemas.clock import ShiftedClock, system_clock
from schemas.errors import BgbatchError
from schemas.ids import AccountId
from schemas.options import CutoutOptions
from schemas.receipt import Receipt
from store.objects.object_store import open_store
from store.purging.receipts import list_receipts, verify_receipts
from store.records import people, sessions
from store.settings import Settings

_A_DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Sent:
    """A customer's batch, and what became of it."""

    customer: Customer
    stamp: Stamp
    counts: Counts
    failures: tuple[tuple[str, str, str], ...]


class Story:
    """One run of the demo in its own folder. Each method is one act; `portal.cli.demo` plays them in order."""

    def __init__(self, folder: Path, settings: Settings, watch: Callable[[Counts], None]) -> None:
        self.folder = folder
        self._parts = replace(open_parts(settings, system_clock), watch=watch)
        self._accounts: dict[str, AccountId] = {}

    def open_accounts(self, portal: str) -> Visitor:
        """Two accounts; the dealer's owner signs in. Returns her browser, on the account page."""
        dealer = ""
        for customer in (DEALER, MARKETPLACE):
            with self._parts.records.transaction() as connection:
                account_id, person_id = people.create_account(
                    connection, customer.name, customer.email, self._parts.clock(), os.urandom
                )
                token = sessions.create_sign_in_link(connection, person_id, self._parts.clock(), os.urandom)
            self._accounts[customer.name] = account_id
            dealer = dealer or token
        visitor = Visitor(portal)
        visitor.open(f"/sign-in/{dealer}")
        visitor.press("Sign in")
        return visitor

    def turn_on(self, visitor: Visitor) -> None:
        """The dealer presses, reads, ticks automotive, confirms: the page's own forms, as a browser posts."""
        visitor.open("/account/ai-training-data")
        visitor.press("Continue", tick=(DEALER.industry.value,))
        visitor.press("Yes, turn it on")

    def turn_off(self, visitor: Visitor) -> None:
        """The dealer takes it back on the account page."""
        visitor.open("/account")
        visitor.press("Turn off")

    def send(self, customer: Customer) -> Sent:
        """Submit the customer's folder and process the batch."""
        photos = self.folder / "photos" / customer.name.lower().replace(" ", "-")
        write_photos(customer, photos)
        options = CutoutOptions()
        stamp = stamp_batch(self._parts, self._accounts[customer.name], customer.industry, options)
        upload(Copying(self._parts, stamp), find_photos(photos).photos, on_item=lambda: None)
        with engine.running(self._parts):
            counts = process_batch(stamp.batch_id)
        results = read_results(self._parts.transient, stamp.batch_id)
        failures = tuple(
            (item.path, result.code, result.sentence)
            for item in results.manifest.items
            if (result := results.became.failed.get(item.number)) is not None
        )
        return Sent(customer, stamp, counts, failures)

    def show(self, batches: list[Sent]) -> Path:
        """Deliver the cutouts, and draw photos and cutouts on one sheet. Returns the sheet's path."""
        pairs: list[tuple[str, bytes, bytes | None]] = []
        transient = self._parts.transient
        for sent in batches:
            name = sent.customer.name.lower().replace(" ", "-")
            cutouts = self.folder / "cutouts" / name
            results = read_results(transient, sent.stamp.batch_id)
            deliver(transient, results, cutouts, lambda: None)
            for item in results.manifest.items:
                is_done = item.number in results.became.done
                photo = (self.folder / "photos" / name / item.path).read_bytes()
                cutout = (cutouts / results.names[item.number]).read_bytes() if is_done else None
                pairs.append((f"{sent.customer.name}: {item.path}", photo, cutout))
        sheet = self.folder / "contact-sheet.png"
        sheet.write_bytes(contact_sheet(pairs))
        return sheet

    def lake_files(self) -> list[str]:
        """Keys of all that lies in the lake now."""
        return [each.key for each in self._parts.lake.walk("")]

    def transient_objects(self) -> int:
        """How many objects lie in the transient store now."""
        return sum(1 for _ in self._parts.transient.objects.walk(""))

    def pull(self, to: str) -> int:
        """What the ML team gets of the dealer's industry now, into a folder of that name. Returns the rows."""
        copy = open_store(str(self.folder / to), self._parts.settings)
        order = Order(place=to)
        return pull(lake_of(self._parts), Query(DEALER.industry), copy, self._parts.clock, order=order).rows

    def take_back_from(self, pulled: str) -> int:
        """What `bgbatch lake verify --erase` does to a copy that was pulled. Returns the rows erased from it."""
        copy = open_store(str(self.folder / pulled), self._parts.settings)
        live = lake_of(self._parts).live()
        return verify(copy, self._parts.records, live, self._parts.clock, erase=True).must_go_rows

    def reconcile(self) -> int:
        """One reconcile; returns how many lake files it erased."""
        with using(self._parts):
            return reconcile().objects

    def let_a_day_pass(self) -> None:
        """Move the passed-in clock on by 24 hours. No other clock is touched."""
        self._parts = replace(self._parts, clock=ShiftedClock(_A_DAY))

    def clean_up(self) -> int:
        """One cleanup; returns how many batches it purged."""
        with using(self._parts):
            return len(cleanup().receipts)

    def receipts(self) -> list[Receipt]:
        """All receipts, after checking their chain."""
        with self._parts.records.reading() as connection:
            found = list_receipts(connection)
        verify_receipts(found)
        return found

    @property
    def parts(self) -> Parts:
        """What the story works with."""
        return self._parts


@contextmanager
def portal_running(parts: Parts) -> Iterator[str]:
    """The real portal on a free port of this machine while the block runs; its address."""
    with listen("127.0.0.1") as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_app(parts.settings, parts.records, parts.transient, parts.clock, os.urandom)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", log_config=None)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise BgbatchError("The portal did not start.")
            time.sleep(0.02)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(timeout=10)
