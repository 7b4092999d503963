"""Signing in: one-time links, and sessions.

Only hashes of their tokens are kept. What has expired is worth nothing at once, and is deleted by `delete_expired`,
which every sign-in and upkeep call.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from schemas.errors import NotAllowed
from schemas.ids import PersonId, Randomness
from store.records.people import IS_IN, Person, person_in, set_identity
from store.records.tables import people, sessions, sign_in_links

LINK_LIFE = timedelta(hours=1)
SESSION_LIFE = timedelta(hours=12)


@dataclass(frozen=True)
class Session:
    """A signed-in person. `form_token` must come back with every form (it stops forged posts)."""

    person: Person
    form_token: str
    expires_at: datetime


def create_sign_in_link(
    connection: Connection,
    person_id: PersonId,
    now: datetime,
    randomness: Randomness,
    identity: tuple[str, str] | tuple[None, None] = (None, None),
) -> str:
    """A token that signs this person in once. `PORTAL_URL/sign-in/<token>` is the link.

    `identity`: issuer and subject, by which an identity provider knows whoever this is for. They are remembered with
    the person when the link is used.
    """
    token = _new_token(randomness)
    issuer, subject = identity
    row = {"token_sha256": _hash(token), "person_id": person_id, "expires_at": now + LINK_LIFE}
    connection.execute(insert(sign_in_links).values(**row, oidc_issuer=issuer, oidc_subject=subject))
    return token


def person_of_link(connection: Connection, token: str, now: datetime) -> Person | None:
    """Whom the link would sign in now. Looking does not use it up: mail scanners look."""
    query = (
        select(people)
        .join_from(sign_in_links, people, sign_in_links.c.person_id == people.c.person_id)
        .where(sign_in_links.c.token_sha256 == _hash(token), sign_in_links.c.expires_at > now, IS_IN)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else person_in(row)


def redeem_sign_in_link(connection: Connection, token: str, now: datetime, randomness: Randomness) -> str:
    """Use a link up and sign its person in; returns the session's token. Raises `NotAllowed`."""
    used = (
        delete(sign_in_links)
        .where(sign_in_links.c.token_sha256 == _hash(token), sign_in_links.c.expires_at > now)
        .returning(sign_in_links.c.person_id, sign_in_links.c.oidc_issuer, sign_in_links.c.oidc_subject)
    )
    row = connection.execute(used).first()
    if row is None:
        raise NotAllowed("This sign-in link was used before or has expired. Ask for a new one.")
    person_id = PersonId(row.person_id)
    if row.oidc_subject is not None:
        set_identity(connection, person_id, row.oidc_issuer, row.oidc_subject)
    return open_session(connection, person_id, now, randomness)


def open_session(connection: Connection, person_id: PersonId, now: datetime, randomness: Randomness) -> str:
    """Sign a person in; returns the session's token, which is not kept."""
    token = _new_token(randomness)
    connection.execute(update(people).where(people.c.person_id == person_id, IS_IN).values(signed_in_at=now))
    delete_expired(connection, now)  # after the person, as whoever takes them out: else each would wait for the other
    connection.execute(
        insert(sessions).values(
            token_sha256=_hash(token),
            person_id=person_id,
            csrf_token=_new_token(randomness),
            expires_at=now + SESSION_LIFE,
        )
    )
    return token


def find_session(connection: Connection, token: str, now: datetime) -> Session | None:
    """Who is signed in with this token now, or nobody."""
    query = (
        select(people, sessions.c.csrf_token, sessions.c.expires_at)
        .join_from(sessions, people, sessions.c.person_id == people.c.person_id)
        .where(sessions.c.token_sha256 == _hash(token), sessions.c.expires_at > now, IS_IN)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else Session(person_in(row), row["csrf_token"], row["expires_at"])


def close_session(connection: Connection, token: str) -> None:
    """Sign out."""
    connection.execute(delete(sessions).where(sessions.c.token_sha256 == _hash(token)))


def delete_expired(connection: Connection, now: datetime) -> int:
    """Delete links and sessions whose time has come, but for those that others have in hand. Returns how many."""
    gone = 0
    for table in (sign_in_links, sessions):
        over = select(table.c.token_sha256).where(table.c.expires_at <= now).with_for_update(skip_locked=True)
        gone += connection.execute(delete(table).where(table.c.token_sha256.in_(over))).rowcount
    return gone


def _new_token(randomness: Randomness) -> str:
    return randomness(32).hex()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
