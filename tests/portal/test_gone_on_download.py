"""Who wants it so has a batch gone once it was fetched whole. A part, or a zip that broke off, counts for nothing."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, expect
from typer.testing import CliRunner

from portal.cli.app import app as commands
from portal.delivery import read_results, zip_stream
from portal.fetched import noting_the_end
from schemas.batch import BatchState, Counts, Item, Manifest, Stamp
from schemas.ids import new_batch_id, received_at
from schemas.options import CutoutOptions
from schemas.results import ShardReport
from store.purging.purge import Purge
from store.records.api_keys import create_key
from store.records.batches import get_batch, open_batch, seal, set_progress
from store.records.early_purge import PurgeWish, find_wish, set_wish
from store.records.people import Role
from store.transient.transient_store import TransientStore, cutout_key, open_transient
from tests.batches import done
from tests.portal.chromium import serving, sign_in
from tests.portal.conftest import Site, opened
from tests.records import at_home

MUCH = 8_000_000
"""Bytes of a cutout: more than all buffers between a server and a client hold."""


def store_of(site: Site) -> TransientStore:
    return open_transient(site.settings, lambda: site.now)


def batch_of(site: Site, name: str = "Acme", items: int = 3, done: int = 3, size: int = 10) -> Stamp:
    """A batch of which so many photos have a cutout; with fewer than all it is still running."""
    batch_id = new_batch_id(site.now, site.randomness)
    received = received_at(batch_id)
    stamp = Stamp(
        batch_id=batch_id,
        received_at=received,
        purge_at=received + timedelta(hours=23),
        industry=None,
        grant_id=None,
        options=CutoutOptions(),
    )
    photos = tuple(Item(number=number, path=f"VIN{number}/front.jpg", size=1) for number in range(1, items + 1))
    store_of(site).seal(Manifest(stamp=stamp, items=photos))
    account_id, _ = site.account(name)
    with site.records.transaction() as connection:
        open_batch(connection, stamp, account_id)
        seal(connection, batch_id, items)
    cut(site, stamp, 1, done, items, size)
    return stamp


def cut(site: Site, stamp: Stamp, first: int, last: int, items: int, size: int = 10) -> None:
    """Photos from `first` to `last` get their cutouts."""
    store = store_of(site)
    for number in range(first, last + 1):
        store.write(stamp, cutout_key(stamp.batch_id, number, ".png"), os.urandom(size))
    results = tuple(done(number, site.now, size) for number in range(first, last + 1))
    store.write_report(stamp, ShardReport(first=first, last=last, results=results))
    with site.records.transaction() as connection:
        state = BatchState.COMPLETED if last == items else BatchState.RUNNING
        set_progress(connection, stamp.batch_id, Counts(items=items, done=last, failed=0), state)


def wish(site: Site, name: str = "Acme") -> None:
    account_id, _ = site.account(name)
    with site.records.transaction() as connection:
        set_wish(connection, account_id, PurgeWish(on_download=True))


def purged(site: Site) -> set[str]:
    """What the next cleanup deletes, each with a receipt that says so."""
    site.wait(minutes=1)
    report = Purge(store_of(site).objects, site.records, timedelta(hours=23), lambda: site.now).run()
    assert not report.faults
    gone = {each.subject for each in report.receipts}
    for batch_id in gone:
        with site.records.transaction() as connection:
            assert get_batch(connection, batch_id).state is BatchState.PURGED
    assert sum(each.objects for each in report.receipts) == report.objects
    return gone


def zip_of(site: Site, stamp: Stamp, name: str = "Acme") -> None:
    answer = site.sign_in(name).client.get(f"/batches/{stamp.batch_id}/cutouts.zip")
    assert answer.status_code == 200


def test_a_whole_zip_of_a_finished_batch_lets_it_go_and_no_other(site: Site) -> None:
    fetched, other, others = batch_of(site), batch_of(site), batch_of(site, "Bazaar")
    wish(site)
    zip_of(site, fetched)
    zip_of(site, others, "Bazaar")
    assert purged(site) == {fetched.batch_id}
    assert store_of(site).manifest(other.batch_id)
    assert store_of(site).manifest(others.batch_id)


def test_by_program_too(site: Site) -> None:
    stamp = batch_of(site)
    wish(site)
    account_id, person_id = site.account("Acme")
    with site.records.transaction() as connection:
        _, key = create_key(connection, account_id, person_id, "tests", site.now, site.randomness)
    client = site.browser().client
    client.get(f"/v1/batches/{stamp.batch_id}/items/1/cutout", headers={"x-api-key": key})
    assert purged(site) == set(), "one cutout is not all"
    assert client.get(f"/v1/batches/{stamp.batch_id}/results.zip", headers={"x-api-key": key}).status_code == 200
    assert purged(site) == {stamp.batch_id}


def test_without_the_wish_a_download_changes_nothing(site: Site) -> None:
    stamp = batch_of(site)
    zip_of(site, stamp)
    assert purged(site) == set()


def test_a_zip_of_a_batch_that_is_not_finished_does_not_count(site: Site) -> None:
    stamp = batch_of(site, items=3, done=2)
    wish(site)
    zip_of(site, stamp)
    assert purged(site) == set()


def test_a_zip_that_began_before_the_last_cutout_does_not_count(site: Site) -> None:
    stamp = batch_of(site, items=3, done=2)
    wish(site)
    store = store_of(site)
    results = read_results(store, stamp.batch_id)
    stream = noting_the_end(zip_stream(store, results), site.records, results, lambda: site.now)
    next(stream)
    cut(site, stamp, 3, 3, items=3)
    list(stream)
    assert purged(site) == set()


def test_an_auditor_who_looks_purges_nothing(site: Site) -> None:
    stamp = batch_of(site)
    wish(site)
    auditor = site.sign_in_as(Role.AUDITOR).client
    for whole in (f"/batches/{stamp.batch_id}/cutouts.zip", f"/v1/batches/{stamp.batch_id}/results.zip"):
        assert auditor.get(whole).status_code == 200
    assert purged(site) == set()


def test_a_zip_that_breaks_off_does_not_count(site: Site) -> None:
    stamp = batch_of(site, size=MUCH)
    wish(site)
    cookie = "; ".join(f"{name}={value}" for name, value in site.sign_in().client.cookies.items())
    with serving(site.app) as address:
        asked = {"Cookie": cookie, "Host": "127.0.0.1:8080"}
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        connection.request("GET", f"/batches/{stamp.batch_id}/cutouts.zip", headers=asked)
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(answer.read(MUCH)) == MUCH
        connection.close()
        answer.close()
    assert purged(site) == set(), "the server has stopped, so nothing of it can come later"
    with serving(site.app) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        connection.request("GET", f"/batches/{stamp.batch_id}/cutouts.zip", headers=asked)
        assert len(connection.getresponse().read()) > 3 * MUCH
        connection.close()
    assert purged(site) == {stamp.batch_id}


def test_an_owner_chooses_on_the_account_page(site: Site) -> None:
    browser = site.sign_in()
    form = next(each for each in browser.forms if "Save" in each.buttons)
    assert form.offered == [("on_download", "yes")], "off unless somebody turns it on"
    assert browser.press("Save", tick=("yes",)).status == 200
    assert wish_of(site) == PurgeWish(on_download=True)
    form = next(each for each in browser.forms if "Save" in each.buttons)
    assert ("on_download", "yes") in form.fields
    token = [pair for pair in form.fields if pair[0] == "form_token"]
    assert browser.send(form.action, [*token, ("after_hours", "6")]).status == 200
    assert wish_of(site) == PurgeWish(after_hours=6)
    for hours in ("30", "23.6", "-1", "1e-12", "0.49", "nan", "soon"):
        assert browser.send(form.action, [*token, ("after_hours", hours)]).status == 400
    assert wish_of(site) == PurgeWish(after_hours=6)


def test_hours_with_a_comma_are_not_ten_times_as_many(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.get_by_label("Hours until a batch").press_sequentially("1,5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("is deleted after 1.5 hours")).to_be_visible()
    assert wish_of(site) == PurgeWish(after_hours=1.5)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
def test_nobody_but_an_owner_chooses(site: Site, role: Role) -> None:
    browser = site.sign_in_as(role)
    assert "Save" not in browser.words
    owner = site.sign_in()
    form = next(each for each in owner.forms if "Save" in each.buttons)
    token = dict(browser.open("/account").forms[0].fields)["form_token"]
    assert browser.send(form.action, [("form_token", token), ("on_download", "yes")]).status == 403
    assert wish_of(site) == PurgeWish()


def wish_of(site: Site) -> PurgeWish:
    with site.records.transaction() as connection:
        return find_wish(connection, site.account("Acme")[0])


@contextmanager
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site of the present, which commands use."""
    monkeypatch.setenv("BGBATCH_HOME", str(tmp_path))
    with opened(at_home(tmp_path), datetime.now(UTC)) as site:
        yield site


def run(*words: str) -> dict[str, object]:
    done = CliRunner().invoke(commands, [*words, "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_work(tmp_path, monkeypatch) as site:
        fetched, alone, kept, unfinished = (
            batch_of(site),
            batch_of(site, "Bazaar"),
            batch_of(site),
            batch_of(site, done=1),
        )
        to = str(tmp_path / "out")
        assert run("download", kept.batch_id, "--to", to)["goes_with_next_cleanup"] is False
        assert run("account", "purge", "Acme") == {"after_hours": None, "on_download": False}
        assert run("account", "purge", "Acme", "--on-download")["on_download"] is True
        assert run("download", fetched.batch_id, "--to", to)["goes_with_next_cleanup"] is True
        assert run("download", alone.batch_id, "--to", to, "--purge")["goes_with_next_cleanup"] is True
        assert run("download", unfinished.batch_id, "--to", to, "--purge")["goes_with_next_cleanup"] is False
        assert purged(site) == {fetched.batch_id, alone.batch_id}
        assert run("account", "purge", "Acme", "--not-on-download", "--after-hours", "6")["after_hours"] == 6
        assert run("account", "purge", "Acme", "--after-hours", "0") == {"after_hours": None, "on_download": False}


def test_a_command_that_fails_half_way_lets_nothing_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with at_work(tmp_path, monkeypatch) as site:
        stamp = batch_of(site)
        wish(site)
        store_of(site).objects.delete([cutout_key(stamp.batch_id, 3, ".png")])
        done = CliRunner().invoke(commands, ["download", stamp.batch_id, "--to", str(tmp_path / "out")])
        assert done.exit_code != 0
        assert purged(site) == set()
