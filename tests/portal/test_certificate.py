from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from portal.cli.app import app as commands
from schemas.certificate import Certificate, check_certificate
from schemas.ids import BatchId, new_batch_id, received_at
from store.purging.purge import Purge
from store.records import batches
from tests.portal.conftest import Site
from tests.store.purging.test_purge import stamp_of


def purged_batch(site: Site, name: str, after: float = 23) -> BatchId:
    account_id, _ = site.account(name)
    batch_id = new_batch_id(site.now, site.randomness)
    with site.records.transaction() as connection:
        batches.open_batch(connection, stamp_of(batch_id), account_id)
    store = site.app.state.portal.transient.objects
    site.wait(hours=after)
    Purge(store, site.records, timedelta(hours=23), lambda: site.now).run()
    return batch_id


def test_a_customer_reads_and_downloads_the_certificate_of_a_batch(site: Site) -> None:
    batch_id = purged_batch(site, "Acme")
    browser = site.sign_in("Acme")
    page = browser.client.get(f"/batches/{batch_id}/certificate")
    assert page.status_code == 200
    assert batch_id in page.text
    assert "1.00 hours" in page.text
    told = Certificate.model_validate(browser.client.get(f"/batches/{batch_id}/certificate.json").json())
    assert check_certificate(told) == 0
    assert told.received_at == received_at(batch_id)


def test_of_a_batch_whose_receipt_restored_records_have_forgotten_nobody_says_that_it_is_not_purged(site: Site) -> None:
    account_id, _ = site.account("Acme")
    batch_id = new_batch_id(site.now, site.randomness)
    with site.records.transaction() as connection:
        batches.open_batch(connection, stamp_of(batch_id), account_id)
        batches.mark_purged(connection, [batch_id], site.now)  # as `consent.suppression.replay` does
    page = site.sign_in("Acme").client.get(f"/batches/{batch_id}/certificate")
    assert page.status_code == 404
    assert "The batch is gone." in page.text
    assert "not purged" not in page.text


def test_a_purge_that_came_too_late_is_told_as_that(site: Site) -> None:
    batch_id = purged_batch(site, "Acme", after=25.5)
    browser = site.sign_in("Acme")
    assert "1 h 30 min after the deadline" in browser.open(f"/batches/{batch_id}").words
    words = browser.open(f"/batches/{batch_id}/certificate").words
    assert "After the deadline1.50 hours" in words.replace("deadline 1", "deadline1")
    assert "before the deadline" not in words.lower()


def test_a_chain_that_is_longer_than_one_file_goes_on_in_more(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = purged_batch(site, "Acme")
    for _ in range(3):
        purged_batch(site, "Bazaar")
    monkeypatch.setattr("store.purging.certificates.LONGEST", 2)
    client = site.sign_in("Acme").client
    address, files = f"/batches/{batch_id}/certificate.json", [tmp_path / "1.json", tmp_path / "2.json"]
    files[0].write_bytes(client.get(address).content)
    head = Certificate.model_validate_json(files[0].read_bytes()).head_sequence
    files[1].write_bytes(client.get(address, params={"after": head}).content)
    words = ["certificate", "--check", str(files[0]), "--more", str(files[1])]
    told = CliRunner().invoke(commands, words)
    assert told.exit_code == 0, told.output
    assert "3 links" in told.stdout
    assert f"the receipt of batch {batch_id}" in told.stdout, "it may be another one's"
    for more in (batch_id, "--after=1"):
        assert "Say which" in CliRunner().invoke(commands, [*words, more]).stderr
    assert "Say which" in CliRunner().invoke(commands, ["certificate", batch_id, *words[3:]]).stderr
    assert CliRunner().invoke(commands, [*words, "--more", str(files[1])]).exit_code != 0
    assert client.get(address, params={"after": head - 1}).status_code == 400
    assert client.get(address, params={"after": head + 99}).status_code == 404
    assert client.get(address, params={"after": 10**30}).status_code == 422


def test_nobody_else_sees_it(site: Site) -> None:
    batch_id = purged_batch(site, "Acme")
    bazaar = site.sign_in("Bazaar").client
    own = bazaar.get(f"/batches/{batch_id}/certificate")
    none = bazaar.get(f"/batches/{new_batch_id(site.now, site.randomness)}/certificate")
    assert own.status_code == none.status_code == 404
    assert own.text == none.text
    answer = site.browser().client.get(f"/batches/{batch_id}/certificate.json", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


def test_what_is_no_certificate_is_told_so_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "photo.json"
    file.write_text('{"batch_id": "half of')
    told = CliRunner().invoke(commands, ["certificate", "--check", str(file)])
    assert told.exit_code == 2
    assert "no certificate" in told.stderr.replace("\n", " ")


def test_a_file_that_no_memory_holds_is_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "results.zip"
    with file.open("wb") as opened:
        opened.truncate(2**42)
    told = CliRunner().invoke(commands, ["certificate", "--check", str(file)])
    assert told.exit_code == 2
    assert "no certificate" in told.stderr.replace("\n", " ")
