"""Limits count for everybody on one database; keys are kept as hashes, and end for good. On both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from random import Random

import pytest
from sqlalchemy import select

from schemas.errors import AlreadyExists, NotFound, UserError
from schemas.ids import BatchId
from store.records import api_keys, idempotency, line, provider_sign_ins, sessions
from store.records.attempts import Limit, wait_before_trying
from store.records.batches import mark_purged, open_batch
from store.records.database import Records
from store.records.expired import forget_expired
from store.records.provider_sign_ins import UnderWay
from store.records.tables import api_keys as api_keys_table
from store.records.tables import attempts, submissions
from store.records.tables import provider_sign_ins as provider_table
from tests.consent.conftest import NOON, Owner, later
from tests.store.conftest import batch_at
from tests.store.purging.test_purge import stamp_of

TWICE_AN_HOUR = Limit("links", 2, timedelta(hours=1))


def test_a_limit_lets_so_many_through_and_says_how_long_to_wait(records: Records) -> None:
    with records.transaction() as connection:
        first = [wait_before_trying(connection, TWICE_AN_HOUR, "ann", later(minute)) for minute in (0, 20, 40, 50)]
        assert first == [None, None, timedelta(minutes=20), timedelta(minutes=10)]
        assert wait_before_trying(connection, TWICE_AN_HOUR, "bob", later(50)) is None, "each on their own"
        other = Limit("posts", 2, timedelta(hours=1))
        assert wait_before_trying(connection, other, "ann", later(50)) is None, "each limit on its own"
        assert wait_before_trying(connection, TWICE_AN_HOUR, "ann", later(60)) is None, "a new window"


def test_a_clock_that_was_ahead_keeps_nobody_out_for_as_long_as_it_was(records: Records) -> None:
    with records.transaction() as connection:
        for _ in range(3):
            wait_before_trying(connection, TWICE_AN_HOUR, "ann", later(60 * 24 * 365))
        tries = [wait_before_trying(connection, TWICE_AN_HOUR, "ann", NOON) for _ in range(3)]
    assert tries == [None, None, timedelta(hours=1)]


def test_who_tried_is_kept_as_a_hash_and_forgotten(records: Records) -> None:
    with records.transaction() as connection:
        wait_before_trying(connection, TWICE_AN_HOUR, "ann@example.com", NOON)
        assert "ann" not in str(connection.execute(select(attempts)).all())
        wait_before_trying(connection, TWICE_AN_HOUR, "bob@example.com", later(60))
        assert len(connection.execute(select(attempts)).all()) == 1


def test_what_has_expired_is_forgotten_though_nobody_comes_by_any_more(owner: Owner) -> None:
    def remember(batch_id: BatchId, now: datetime) -> None:
        draw = Random(str(batch_id)).randbytes
        open_batch(connection, stamp_of(batch_id), owner.account_id)
        line.enter(connection, batch_id, owner.account_id, upload_key=batch_id)
        idempotency.begin(connection, owner.account_id, batch_id, b"{}", batch_id, now)
        sessions.create_sign_in_link(connection, owner.person_id, now, draw)
        sessions.open_session(connection, owner.person_id, now, draw)
        provider_sign_ins.keep(connection, batch_id, UnderWay("s", "n", "v"), now)
        wait_before_trying(connection, TWICE_AN_HOUR, batch_id, now)

    old, young = batch_at(NOON), batch_at(later(60 * 30))
    with owner.records.transaction() as connection:
        remember(old, NOON)
        mark_purged(connection, [old], later(60 * 23))
        assert forget_expired(connection, later(60 * 30)) == 7, "and the owner's own session"
        remember(young, later(60 * 30))
        assert forget_expired(connection, later(60 * 30)) == 0
        kept = connection.execute(select(submissions.c.batch_id, submissions.c.upload_key)).all()
        assert sorted(map(tuple, kept)) == sorted([(old, None), (young, young)])


def test_many_at_once_do_not_pass_a_limit(records: Records) -> None:
    def attempt(_: int) -> bool:
        with records.transaction() as connection:
            return wait_before_trying(connection, Limit("links", 5, timedelta(hours=1)), "ann", NOON) is None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(40))) == 5


def test_a_key_is_found_by_its_text_until_it_is_revoked(owner: Owner, other: Owner) -> None:
    with owner.records.transaction() as connection:
        key, text = new_key(connection, owner)
        assert api_keys.find_key(connection, text) == key
        assert api_keys.find_key(connection, text[:-1]) is None
        assert api_keys.find_key(connection, "") is None
        with pytest.raises(NotFound):
            api_keys.revoke_key(connection, other.account_id, key.key_id, later(1))
        api_keys.revoke_key(connection, owner.account_id, key.key_id, later(1))
        api_keys.revoke_key(connection, owner.account_id, key.key_id, later(9))
        assert api_keys.find_key(connection, text) is None
        (kept,) = api_keys.list_keys(connection, owner.account_id)
        assert kept.revoked_at == later(1), "revoked once"
        assert api_keys.list_keys(connection, other.account_id) == []


def test_the_text_of_a_key_is_nowhere(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        _, text = new_key(connection, owner)
        kept = str(connection.execute(select(api_keys_table)).all())
    assert text.startswith("bgb_")
    assert text.removeprefix("bgb_") not in kept


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\nb"])
def test_a_key_needs_a_name(owner: Owner, name: str) -> None:
    with owner.records.transaction() as connection, pytest.raises(UserError):
        new_key(connection, owner, name)


def test_an_account_cannot_have_keys_without_end(owner: Owner) -> None:
    with owner.records.transaction() as connection:
        keys = [new_key(connection, owner, f"run {n}", n, n)[0] for n in range(api_keys.MOST_KEYS)]
        assert api_keys.list_keys(connection, owner.account_id) == keys[::-1], "the newest first"
        with pytest.raises(UserError, match="Revoke one"):
            new_key(connection, owner, seed=99)
        api_keys.revoke_key(connection, owner.account_id, keys[0].key_id, NOON)
        new_key(connection, owner, seed=99)


def test_of_the_keys_in_use_each_has_a_name_of_its_own_also_when_two_are_made_at_once(owner: Owner) -> None:
    def make() -> None:
        with owner.records.transaction() as connection:
            new_key(connection, owner, " nightly run ", seed=2)

    with ThreadPoolExecutor(1) as pool:
        with owner.records.transaction() as connection:
            key, _ = new_key(connection, owner)
            other = pool.submit(make)
            assert wait([other], timeout=0.5).not_done, "it waits for the first"
        with pytest.raises(AlreadyExists, match="that name already"):
            other.result(30)
    with owner.records.transaction() as connection:
        api_keys.revoke_key(connection, owner.account_id, key.key_id, NOON)
        new_key(connection, owner, seed=2)


def test_what_was_asked_of_a_provider_is_answered_once_by_the_same_browser(records: Records) -> None:
    asked = UnderWay("state", "nonce", "verifier")
    with records.transaction() as connection:
        provider_sign_ins.keep(connection, "browser", asked, NOON)
        provider_sign_ins.keep(connection, "somebody's", UnderWay("s", "n", "v"), later(1))
        assert provider_sign_ins.take(connection, "another", later(1)) is None
        assert provider_sign_ins.take(connection, "browser", later(1)) == asked
        assert provider_sign_ins.take(connection, "browser", later(1)) is None
        provider_sign_ins.keep(connection, "browser", asked, NOON)
        assert provider_sign_ins.take(connection, "browser", later(15)) is None
        provider_sign_ins.keep(connection, "third", asked, later(16))
        assert len(connection.execute(select(provider_table)).all()) == 1, "old ones are deleted"


def new_key(connection, owner: Owner, name: str = "nightly run", seed: int = 1, minute: int = 0):
    return api_keys.create_key(
        connection, owner.account_id, owner.person_id, name, later(minute), Random(seed).randbytes
    )
