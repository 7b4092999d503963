"""Withdrawals, purges and closings, written down a second time, beside the lake: what a restored old database forgets.

`grants/<grant id>.json` holds a withdrawal's event; `purges/<number>-<hash>.json` holds the receipts of batches purged
since the one before; `accounts/<account id>.json` says when an account was closed. All are written whole and never
changed. `note` writes what is missing: after a withdrawal or closing, and on every reconcile. `replay` runs before a
ledger serves: a grant that is live there but withdrawn here is withdrawn there, too, and an account is closed again.
`purges.json` says how far the receipts are written, so that `note` need not read what it has noted.
`ledger.json` holds the ledger's newest event: the chain alone cannot show that its end was cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, Table, select

from consent.append import Draft, append, select_events
from consent.ledger import Refusal, live_grants, withdraw_all
from consent.locks import lock_grant, lock_ledger
from schemas.consent import Act, Grant, Method
from schemas.errors import LedgerBroken, NotFound, StoreFault
from schemas.ids import AccountId, BatchId, GrantId, PersonId, parse_grant_id
from schemas.receipt import Erased, Receipt
from schemas.record import Moment, Record
from store.objects.object_store import ObjectStore, open_store
from store.purging.receipts import forget_erasures
from store.records.batches import mark_purged
from store.records.closing import erase_account
from store.records.database import Records
from store.records.tables import accounts, consent_events, receipts
from store.settings import Settings

_REASON = "withdrawn before the records were restored from a backup"
_AnyRecord = TypeVar("_AnyRecord", bound=BaseModel)
_IN_ONE_QUERY = 500  # databases limit how many values a query may carry
_GRANTS, _PURGES, _ACCOUNTS, _MARK, _END = "grants", "purges", "accounts", "purges.json", "ledger.json"


class _Mark(Record):
    """The newest receipt or event that was noted: `hash` tells it from another of the same `sequence`."""

    sequence: int
    hash: str


class _Purges(Record):
    receipts: tuple[Receipt, ...]


class _Closing(Record):
    closed_at: Moment


class _Withdrawal(BaseModel):
    """What is noted of an event: what `replay` needs. Earlier versions noted more."""

    actor: PersonId | None
    received_at: Moment


@dataclass(frozen=True)
class _Forgotten:
    """What is noted and the records do not know: batches that were purged, grants withdrawn, accounts closed."""

    purges: Sequence[tuple[BatchId, datetime]] = field(default_factory=list)
    withdrawals: Mapping[GrantId, _Withdrawal] = field(default_factory=dict)
    closings: Mapping[AccountId, datetime] = field(default_factory=dict)


def open_suppressions(settings: Settings) -> ObjectStore:
    """The folder or prefix beside the lake. It is backed up with nothing and restored from nothing."""
    return open_store(settings.suppressions_root, settings)


def note(connection: Connection, objects: ObjectStore) -> int:
    """Write every withdrawal, closing and purge of a batch that is not written yet. Returns how many. `StoreFault`."""
    _note_end(connection, objects)
    closings = _note_closings(connection, objects)
    return _note_withdrawals(connection, objects) + closings + _note_purges(connection, objects)


def note_soon(records: Records, objects: ObjectStore) -> None:
    """Note withdrawals and closings right after one. A store out of reach costs none: the next reconcile notes it."""
    with suppress(StoreFault), records.reading() as connection:
        _note_withdrawals(connection, objects)
        _note_closings(connection, objects)


def replay(records: Records, objects: ObjectStore, now: datetime) -> list[Grant]:
    """Make a restored database remember. Returns the grants that it held live and that had been withdrawn.

    Raises `StoreFault`, and `LedgerBroken` when an object cannot be read as what it must be: then nothing may serve.
    """
    with records.reading() as connection:  # the store may be slow, and others wait for their turn to write
        forgotten = _Forgotten(
            purges=[(BatchId(each.subject), each.last_deletion) for each in _forgotten_purges(connection, objects)],
            withdrawals=_forgotten_withdrawals(connection, objects),
            closings=_forgotten_closings(connection, objects),
        )
    if forgotten == _Forgotten():
        return []
    with records.transaction() as connection:
        for batch_id, purged_at in forgotten.purges:
            mark_purged(connection, [batch_id], purged_at)
        forget_erasures(connection, {batch_id for batch_id, _ in forgotten.purges})
        ended = _withdraw_again(connection, forgotten.withdrawals, now)
        for account_id, closed_at in forgotten.closings.items():
            withdraw_all(connection, Refusal(account_id, Method.OPERATOR, now, reason=_REASON), now)
            erase_account(connection, account_id, closed_at)
    return ended


def check_end(connection: Connection, objects: ObjectStore) -> None:
    """Raises `LedgerBroken` when the ledger does not hold the event that was its newest once."""
    noted = _mark(objects, _END)
    if noted is not None and not _holds(connection, consent_events, noted):
        raise LedgerBroken(
            f"Event {noted.sequence} of the consent ledger is missing, or another one than was noted beside the lake: "
            "the ledger's end was cut off, or an older backup was restored."
        )


def accept_end(connection: Connection, objects: ObjectStore) -> None:
    """Note the ledger's end as it is now, after an operator has said that a backup was restored."""
    objects.delete([_END])
    _note_end(connection, objects)


def noted_purges(objects: ObjectStore) -> Iterator[Receipt]:
    """The receipts of all batches that were purged, whatever the records know. Raises `StoreFault`, `LedgerBroken`."""
    return _receipts_in(objects, _names_of_notes(objects))


def _note_end(connection: Connection, objects: ObjectStore) -> None:
    """Move the mark forward. One that the ledger does not hold stays, until somebody has looked: `check_end`."""
    noted, newest = _mark(objects, _END), _newest(connection)
    if newest is not None and newest != noted and (noted is None or _holds(connection, consent_events, noted)):
        objects.write(_END, newest.model_dump_json().encode())


def _newest(connection: Connection) -> _Mark | None:
    query = select(consent_events.c.sequence, consent_events.c.hash).order_by(consent_events.c.sequence.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _Mark(sequence=row.sequence, hash=row.hash)


def _note_withdrawals(connection: Connection, objects: ObjectStore) -> int:
    noted = set(objects.files(_GRANTS))
    withdrawn = select_events().where(consent_events.c.act == Act.WITHDRAWN, consent_events.c.grant_id.is_not(None))
    missing = [
        row
        for row in connection.execute(withdrawn).mappings()
        if parse_grant_id(row["grant_id"]) and f"{row['grant_id']}.json" not in noted
    ]
    for row in missing:
        # Not checked: a damaged withdrawal is one. Without its reason, in whose words there may be anything.
        withdrawal = _Withdrawal.model_construct(actor=row["actor"], received_at=row["received_at"])
        objects.write(f"{_GRANTS}/{row['grant_id']}.json", withdrawal.model_dump_json(warnings=False).encode())
    return len(missing)


def _note_closings(connection: Connection, objects: ObjectStore) -> int:
    if not _sees_accounts(connection):
        return 0
    noted = set(objects.files(_ACCOUNTS))
    closed = select(accounts.c.account_id, accounts.c.closed_at).where(accounts.c.closed_at.is_not(None))
    missing = [each for each in connection.execute(closed).all() if f"{each.account_id}.json" not in noted]
    for each in missing:
        closing = _Closing(closed_at=each.closed_at).model_dump_json().encode()
        objects.write(f"{_ACCOUNTS}/{each.account_id}.json", closing)
    return len(missing)


def _note_purges(connection: Connection, objects: ObjectStore) -> int:
    mark = _mark(objects, _MARK)
    after = mark.sequence if mark is not None else 0
    if mark is not None and not _holds(connection, receipts, mark):  # it is another database, or was restored
        after = max(_known(connection, _names_of_notes(objects)).values(), default=0)
    query = select(receipts).where(receipts.c.sequence > after).order_by(receipts.c.sequence)
    found = [Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings()]
    if not found:
        return 0
    newest = _Mark(sequence=found[-1].sequence, hash=found[-1].hash)
    purges = _Purges(receipts=tuple(each for each in found if each.kind is Erased.BATCH))
    if purges.receipts:
        objects.write(f"{_PURGES}/{_name_of_note(newest)}", purges.model_dump_json().encode())
    objects.write(_MARK, newest.model_dump_json().encode())
    return len(purges.receipts)


def _forgotten_purges(connection: Connection, objects: ObjectStore) -> Iterator[Receipt]:
    mark = _mark(objects, _MARK)
    if mark is not None and not _holds(connection, receipts, mark):
        names = _names_of_notes(objects)
        known = _known(connection, names)
        yield from _receipts_in(objects, [name for name in names if name not in known])


def _names_of_notes(objects: ObjectStore) -> list[str]:
    return [name for name in objects.files(_PURGES) if name.endswith(".json")]  # a killed writer's partial does not


def _receipts_in(objects: ObjectStore, names: Sequence[str]) -> Iterator[Receipt]:
    for name in names:
        yield from _read(objects, f"{_PURGES}/{name}", _Purges).receipts


def _known(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """Those of these notes whose last receipt, of this number, the records hold, and so all: a year's need no reading.

    Not each before the newest of them is known: records that were restored twice do not know what was purged between.
    """
    numbers = sorted({int(each[:12]) for each in names if each[:12].isdecimal()})
    held = dict[str, int]()
    for start in range(0, len(numbers), _IN_ONE_QUERY):
        some = receipts.c.sequence.in_(numbers[start : start + _IN_ONE_QUERY])
        for row in connection.execute(select(receipts.c.sequence, receipts.c.hash).where(some)):
            held[_name_of_note(_Mark(sequence=row.sequence, hash=row.hash))] = row.sequence
    return {each: held[each] for each in names if each in held}


def _name_of_note(last: _Mark) -> str:
    return f"{last.sequence:012d}-{last.hash[:32]}.json"


def _forgotten_withdrawals(connection: Connection, objects: ObjectStore) -> dict[GrantId, _Withdrawal]:
    noted = set(objects.files(_GRANTS))
    ended = [grant for grant in live_grants(connection) if _name(grant) in noted]
    return {grant.grant_id: _read(objects, f"{_GRANTS}/{_name(grant)}", _Withdrawal) for grant in ended}


def _forgotten_closings(connection: Connection, objects: ObjectStore) -> dict[AccountId, datetime]:
    if not _sees_accounts(connection):
        return {}
    noted = set(objects.files(_ACCOUNTS))
    are_open = connection.execute(select(accounts.c.account_id).where(accounts.c.closed_at.is_(None))).scalars()
    closed = [AccountId(each) for each in are_open if f"{each}.json" in noted]
    return {each: _read(objects, f"{_ACCOUNTS}/{each}.json", _Closing).closed_at for each in closed}


def _withdraw_again(connection: Connection, withdrawals: Mapping[GrantId, _Withdrawal], now: datetime) -> list[Grant]:
    """Those of these that are live by now: somebody may have been here meanwhile."""
    if not withdrawals:
        return []
    lock_ledger(connection)
    ended = []
    for grant in live_grants(connection):
        withdrawal = withdrawals.get(grant.grant_id)
        if withdrawal is None:
            continue
        lock_grant(connection, grant.grant_id, shared=False)
        draft = Draft(
            account_id=grant.account_id,
            actor=withdrawal.actor,
            act=Act.WITHDRAWN,
            industry=grant.industry,
            grant_id=grant.grant_id,
            method=Method.OPERATOR,
            page="",
            reason=_REASON,
            received_at=withdrawal.received_at,
        )
        event = append(connection, draft, now)
        ended.append(grant.model_copy(update={"withdrawn_at": event.received_at}))
    return ended


def _sees_accounts(connection: Connection) -> bool:
    """The cleanup's login may not; the dispatcher's reconcile makes up for it."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.exec_driver_sql("SELECT has_table_privilege('accounts', 'SELECT')").scalar())


def _mark(objects: ObjectStore, key: str) -> _Mark | None:
    try:
        return _read(objects, key, _Mark)
    except NotFound:
        return None


def _holds(connection: Connection, chain: Table, mark: _Mark) -> bool:
    query = select(chain.c.sequence).where(chain.c.sequence == mark.sequence, chain.c.hash == mark.hash)
    return connection.execute(query).first() is not None


def _name(grant: Grant) -> str:
    return f"{grant.grant_id}.json"


def _read(objects: ObjectStore, key: str, kind: type[_AnyRecord]) -> _AnyRecord:
    try:
        return kind.model_validate_json(objects.read(key))
    except ValidationError:
        raise LedgerBroken(
            "An object among the suppressions beside the lake cannot be read. Restore it, then start again."
        ) from None
