"""Sign-ins that are under way at the identity provider: what was asked, bound to the browser that asked.

A row is taken out when the browser comes back, so an answer can be used once, and by that browser alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert

from store.records.tables import provider_sign_ins

LIFE = timedelta(minutes=15)
"""How long somebody may take at the provider."""


@dataclass(frozen=True)
class UnderWay:
    """What the answer must fit: `state` and `nonce` come back with it, `code_verifier` (PKCE) fetches the tokens."""

    state: str
    nonce: str
    code_verifier: str


def keep(connection: Connection, browser: str, asked: UnderWay, now: datetime) -> None:
    """Remember what was asked for the browser that holds the secret `browser`, of which only a hash is kept."""
    connection.execute(delete(provider_sign_ins).where(provider_sign_ins.c.expires_at <= now))
    connection.execute(
        insert(provider_sign_ins).values(
            browser_sha256=_hash(browser),
            state=asked.state,
            nonce=asked.nonce,
            code_verifier=asked.code_verifier,
            expires_at=now + LIFE,
        )
    )


def take(connection: Connection, browser: str, now: datetime) -> UnderWay | None:
    """What was asked for this browser, once; None when nothing was, or too long ago."""
    taken = (
        delete(provider_sign_ins)
        .where(provider_sign_ins.c.browser_sha256 == _hash(browser), provider_sign_ins.c.expires_at > now)
        .returning(provider_sign_ins.c.state, provider_sign_ins.c.nonce, provider_sign_ins.c.code_verifier)
    )
    row = connection.execute(taken).first()
    return None if row is None else UnderWay(row.state, row.nonce, row.code_verifier)


def _hash(browser: str) -> str:
    return hashlib.sha256(browser.encode()).hexdigest()
