"""How often somebody may post a form, ask for a link, or try to sign in; beyond it they wait (429)."""

from __future__ import annotations

import math
from datetime import timedelta
from ipaddress import IPv6Address

from fastapi import Request

from portal.web.portal import Portal, ThePortal
from schemas.counting import so_many
from schemas.errors import TooManyTries
from store.records.attempts import Limit, wait_before_trying

POSTS = Limit("posts", 300, timedelta(minutes=1))
"""Forms from one network address. A whole office may share one."""

SIGN_INS = Limit("sign_ins", 60, timedelta(minutes=10))
"""Links used, and provider sign-ins begun or ended, from one network address."""

LINKS_TO = Limit("links_to", 5, timedelta(hours=1))
"""Letters to one e-mail address, so that nobody's letter box is filled."""

LINKS_FROM = Limit("links_from", 30, timedelta(hours=1))
"""Links asked for from one network address."""

ADDED = Limit("people_added", 60, timedelta(hours=1))
"""People that an account's owners add: each is written to, and may be a stranger."""


def limit(portal: Portal, which: Limit, who: str) -> None:
    """Count one try of `who`. Raises `TooManyTries`."""
    with portal.records.transaction() as connection:
        left = wait_before_trying(connection, which, who, portal.clock())
    if left is not None:
        seconds = math.ceil(left.total_seconds())
        words = so_many(seconds, "second") if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"
        raise TooManyTries(f"That was too often. Wait {words} and try again. Nothing was changed.", seconds)


def limited_posts(request: Request, portal: ThePortal) -> None:
    """Of all pages' forms: at most so many in a while. Raises `TooManyTries`."""
    if request.method == "POST":
        limit(portal, POSTS, network_address(request))


def network_address(request: Request) -> str:
    """Where the request came from; of IPv6 the /64, all of which one connection has to itself.

    Behind a proxy, uvicorn's `--forwarded-allow-ips` says whose word counts.
    """
    host = request.client.host if request.client else ""
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
