"""What a customer takes home: valid against its schema, true JSON-LD, and nothing personal in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from pyld import jsonld

import consent
from consent import ledger
from consent.consent_receipt import consent_receipt
from schemas.errors import NotFound
from schemas.industries import Industry
from tests.consent.conftest import Owner, later

SCHEMA = json.loads((Path(consent.__file__).parent / "consent_receipt.schema.json").read_text())
PORTAL = "https://portal.example"


def receipt_of(owner: Owner) -> dict[str, object]:
    with owner.records.transaction() as connection:
        events = ledger.read_events(connection, owner.account_id)
    return json.loads(json.dumps(consent_receipt(events, PORTAL, later(9))))


def check(receipt: object) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA, format_checker=FormatChecker()).validate(receipt)


def test_receipts_of_a_live_and_of_a_withdrawn_grant_are_valid(owner: Owner) -> None:
    owner.press(Industry.AUTOMOTIVE)
    live = receipt_of(owner)
    check(live)
    with owner.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(5)), Industry.AUTOMOTIVE, later(5))
    ended = receipt_of(owner)
    check(ended)
    record = ended["dpv:hasRecordOfActivity"]
    assert [each["@type"] for each in record["dpv:hasConsentStatus"]] == ["dpv:ConsentGiven", "dpv:ConsentWithdrawn"]
    text = record["dpv:hasNotice"]["schema:text"]
    assert hashlib.sha256(text.encode()).hexdigest() == record["dpv:hasNotice"]["bgbatch:sha256"]


def test_a_receipt_that_was_tampered_with_is_not_valid(owner: Owner) -> None:
    owner.press(Industry.AUTOMOTIVE)
    for path, value in (("@type", "x"), ("dct:created", "yesterday"), ("extra", 1)):
        with pytest.raises(ValidationError):
            check(receipt_of(owner) | {path: value})


def test_every_word_of_it_is_a_term_with_an_address(owner: Owner) -> None:
    owner.press(Industry.AUTOMOTIVE)
    receipt = receipt_of(owner)

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a receipt must be readable without fetching anything")

    (expanded,) = jsonld.expand(receipt, {"documentLoader": no_network})
    assert expanded["@type"] == ["https://w3id.org/dpv#ConsentReceipt"]
    assert count_keys(receipt) == count_keys(expanded), "no key was dropped as unknown"


def count_keys(value: object) -> int:
    if isinstance(value, list):
        return sum(map(count_keys, value))
    if isinstance(value, dict):
        own = [key for key in value if not key.startswith("@")]
        return len(own) + sum(count_keys(value[key]) for key in own)
    return 0


def test_nothing_personal_is_in_it(owner: Owner) -> None:
    owner.press(Industry.AUTOMOTIVE)
    text = json.dumps(receipt_of(owner))
    assert "owner@example.com" not in text
    assert "Acme" not in text


def test_it_promises_what_the_policy_does_in_figures_that_do_not_hang_on_the_clock(owner: Owner) -> None:
    owner.press(Industry.AUTOMOTIVE)
    receipt = receipt_of(owner)
    kept = receipt["dpv:hasRecordOfActivity"]["dpv:hasProcess"]["dpv:hasStorageCondition"]["dct:description"]
    assert kept == "Until withdrawn; then unreadable at once and erased within 24 hours"
    assert receipt["dct:created"] == "2026-11-25T12:09:00.000000+00:00", "a full second has its six digits too"


def test_a_no_has_no_receipt(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        ledger.decline(connection, owner.refusal(), later(1))
    with pytest.raises(NotFound):
        receipt_of(owner)
