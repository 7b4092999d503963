"""A consent receipt for the customer to keep: one grant, in the form of ISO/IEC TS 27560 as the W3C's DPV writes it.

Pure: the events of one grant go in, a JSON-LD document comes out. It names the account by its random id only. Its
`ledger` part lets anybody who has the ledger check that the receipt tells of the same events.
docs: https://w3id.org/dpv/guides/consent-27560. The form is fixed in consent/consent_receipt.schema.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from consent.notice import find_notice
from schemas.batch import PROMISED_LIFE
from schemas.consent import Act, ConsentEvent
from schemas.errors import NotFound

Json = str | int | None | Sequence["Json"] | dict[str, "Json"]

_CONTEXT: dict[str, Json] = {
    "dpv": "https://w3id.org/dpv#",
    "dct": "http://purl.org/dc/terms/",
    "schema": "https://schema.org/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "bgbatch": "urn:bgbatch:terms:",
    "dct:created": {"@type": "xsd:dateTime"},
    "dct:date": {"@type": "xsd:dateTime"},
}
_STATUS = {Act.GRANTED: "dpv:ConsentGiven", Act.WITHDRAWN: "dpv:ConsentWithdrawn"}


def consent_receipt(events: Sequence[ConsentEvent], controller: str, now: datetime) -> dict[str, Json]:
    """The receipt of the grant that `events` (its own, in order) tell of. `controller`: the portal's address.

    Raises `NotFound` when there is no grant among them.
    """
    given = next((event for event in events if event.act is Act.GRANTED), None)
    if given is None or given.grant_id is None:
        raise NotFound("There is no grant of that id in your account.")
    return {
        "@context": dict(_CONTEXT),
        "@id": f"urn:bgbatch:receipt:{given.grant_id}:{events[-1].sequence}",
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": f"{given.grant_id}-{events[-1].sequence}",
        "dct:conformsTo": {"@id": "https://w3id.org/dpv/schema/dpv-27560#receipt"},
        "dct:created": _moment(now),
        "dct:publisher": {"@id": controller},
        "dpv:hasRecordOfActivity": _record(given, events, controller),
    }


def _record(given: ConsentEvent, events: Sequence[ConsentEvent], controller: str) -> dict[str, Json]:
    notice = find_notice(given.notice_version)
    return {
        "@id": f"urn:bgbatch:grant:{given.grant_id}",
        "@type": "dpv:ConsentRecord",
        "dct:identifier": given.grant_id,
        "dct:conformsTo": {"@id": "https://w3id.org/dpv/schema/dpv-27560#record"},
        "dpv:hasDataSubject": {
            "@id": f"urn:bgbatch:account:{given.account_id}",
            "@type": "dpv:Customer",
            "bgbatch:actor": given.actor,
        },
        "dpv:hasDataController": {"@id": controller, "@type": "dpv:DataController"},
        "dpv:hasLegalBasis": {"@id": "dpv:ExplicitlyExpressedConsent"},
        "dpv:hasNotice": {
            "@id": f"urn:bgbatch:notice:{notice.version}",
            "@type": "dpv:ConsentNotice",
            "dct:title": notice.title,
            "dct:hasVersion": notice.version,
            "dct:language": "en",
            "schema:text": notice.text,
            "bgbatch:sha256": given.notice_sha256,
        },
        "dpv:hasProcess": _process(given),
        "dpv:hasConsentStatus": [_status(event) for event in events],
        "dpv:hasConsentControl": {
            "@type": "dpv:WithdrawConsent",
            "dct:description": f"Turn it off at any time, with one press, at {controller}/account",
        },
    }


def _process(given: ConsentEvent) -> dict[str, Json]:
    hours = int(PROMISED_LIFE.total_seconds() // 3600)
    return {
        "@type": "dpv:Process",
        "dpv:hasPurpose": {
            "@type": "dpv:ImproveExistingProductsAndServices",
            "dct:description": "Train and improve background removal models",
        },
        "dpv:hasData": {
            "@type": "dpv:Data",
            "dct:description": f"{given.industry.label}: images sent after the grant, and their masks",
            "bgbatch:industry": given.industry.value,
        },
        "dpv:hasProcessing": [{"@id": "dpv:Store"}, {"@id": "dpv:Use"}],
        "dpv:hasStorageCondition": {
            "@type": "dpv:StorageDuration",
            "dct:description": f"Until withdrawn; then unreadable at once and erased within {hours} hours",
        },
    }


def _status(event: ConsentEvent) -> dict[str, Json]:
    return {
        "@type": _STATUS[event.act],
        "dct:date": _moment(event.received_at),
        "bgbatch:method": event.method.value,
        "bgbatch:page": event.page,
        "bgbatch:ledger": {
            "bgbatch:sequence": event.sequence,
            "bgbatch:recordedAt": _moment(event.recorded_at),
            "bgbatch:accountPreviousHash": event.account_previous_hash,
            "bgbatch:previousHash": event.previous_hash,
            "bgbatch:hash": event.hash,
        },
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
