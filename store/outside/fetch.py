"""Calling addresses that a customer named, without letting the call reach anything that is not public.

1. http and https only, no user names in the address, no proxy.
2. The name is resolved once; the call goes to one of the addresses found, and only if *all* of them are public: not
   private, loopback, link-local (where clouds keep their metadata), multicast or reserved, also not wrapped in IPv6.
3. A redirect is a new address: it is checked in the same way, and there are few of them.
4. Size and time are limited for the whole call, not for each read: each of them gets what is left of it (`_Timed`).
   So does each look-up of a name, which the system ends by time limits of its own: nobody waits for it longer.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from schemas.errors import FetchFailed, FileTooLarge, UnsafeAddress

Resolve = Callable[[str, int], Sequence[str]]
Guard = Callable[[str], bool]

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""The address may be right, and its server is too busy for it, or out of order."""
_PIECE = 65_536
_MOST_DIGITS = 18
"""Of a length that is read as a number at all."""
_UNSAFE = "The address is not known, or not one that this service may call. Use a public http or https address."
"""The same for both: nobody learns here which names the operator's own network knows."""
_TOO_SLOW = "The address was too slow. Try again later."
_LOOKUPS = ThreadPoolExecutor(64, thread_name_prefix="name")
"""Looks names up: however many get no answer, so many threads wait for one. Nobody can interrupt the system there."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_OF_CLOUDS = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("192.0.0.0/24"))
"""Azure's and Oracle's hosts answer their own machines there, with secrets; Python takes them for public addresses."""


@dataclass(frozen=True)
class FetchLimits:
    """For one call with all of its redirects."""

    bytes: int
    seconds: float = 30.0
    redirects: int = 5


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, whichever way it is written."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:  # fec0::/10, the private addresses of old, which Python takes for global ones
            return False
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in each for each in _OF_CLOUDS))


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Fetcher:
    """Safe calls. Tests put in their own names (`resolve`) and allow their own server (`guard`)."""

    def __init__(self, limits: FetchLimits, guard: Guard = is_public, resolve: Resolve = resolve) -> None:
        self._limits = limits
        self._guard = guard
        self._resolve = resolve

    def get(self, url: str) -> bytes:
        """The bytes at `url`. Raises `UnsafeAddress`, `FetchFailed`, `FileTooLarge`."""
        end = time.monotonic() + self._limits.seconds
        for more in reversed(range(self._limits.redirects + 1)):
            with _Call(self._connect(url, end), url) as call:
                answer = call.send("GET", None, {"Accept": "image/*", "Accept-Encoding": "identity"})
                if answer.status == 200:
                    return self._read(call, answer)
                if answer.status in _REDIRECTS:
                    url = _joined(url, answer.getheader("Location", ""))
                    continue
                pause = _asked_to_wait(answer)
                if not more or pause is None or pause >= _left(end):
                    do = "Try again later" if answer.status in _PASSING else "Check the address"
                    raise FetchFailed(f"The photo's address answered {answer.status}. {do}.")
            time.sleep(pause)
        raise FetchFailed("The photo's address redirects too often. Give the last address.")

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send `body`; the status of the answer. Redirects are not followed. Raises `UnsafeAddress`, `FetchFailed`."""
        end = time.monotonic() + self._limits.seconds
        with _Call(self._connect(url, end), url) as call:
            return call.send("POST", body, headers).status

    def check(self, url: str) -> None:
        """Raise `UnsafeAddress` for an address that would not be called now, `FetchFailed` if nobody says in time."""
        _, host, port = _split(url)
        self._addresses(host, port, time.monotonic() + self._limits.seconds)

    def _read(self, call: _Call, answer: http.client.HTTPResponse) -> bytes:
        too_large = FileTooLarge("The photo at the address is larger than the limit. Send a smaller one.")
        said = answer.getheader("Content-Length") or ""
        is_number = said.isascii() and said.isdigit()
        if is_number and (len(said) > _MOST_DIGITS or int(said) > self._limits.bytes):
            raise too_large
        pieces, size = [], 0
        while piece := call.read(answer):
            size += len(piece)
            if size > self._limits.bytes:
                raise too_large
            pieces.append(piece)
        if is_number and size < int(said):
            raise FetchFailed("The photo's address stopped before the end of the file. Try again.")
        return b"".join(pieces)

    def _addresses(self, host: str, port: int, end: float) -> Sequence[str]:
        lookup = _LOOKUPS.submit(self._resolve, host, port)
        try:
            found = lookup.result(_left(end))
        except TimeoutError:
            lookup.cancel()  # if it still waits for a thread
            raise FetchFailed(_TOO_SLOW) from None
        except (OSError, UnicodeError):
            raise UnsafeAddress(_UNSAFE) from None
        if not found or not all(self._guard(address) for address in found):
            raise UnsafeAddress(_UNSAFE)
        return found

    def _connect(self, url: str, end: float) -> http.client.HTTPConnection:
        parts, host, port = _split(url)
        addresses = self._addresses(host, port, end)
        for tried, address in enumerate(addresses):
            # One that swallows what it is sent takes its share of the time, and leaves the others theirs.
            share = _left(end) / (len(addresses) - tried)
            try:
                bare = _Timed(fileno=socket.create_connection((address, port), timeout=share).detach())
            except OSError:
                continue
            bare.end = end
            bare.settimeout(_left(end))  # for the whole of a TLS handshake
            connection = http.client.HTTPConnection(host, port)
            connection.sock = bare  # http.client calls the host that was checked, and no other
            if parts.scheme == "https":
                context = ssl.create_default_context()
                context.sslsocket_class = _TimedTls
                try:
                    secure = context.wrap_socket(bare, server_hostname=host)
                except (OSError, ValueError):
                    bare.close()
                    raise FetchFailed("The address has no valid certificate for its name. Check the address.") from None
                assert isinstance(secure, _TimedTls)
                secure.end = end
                connection.sock = secure
            return connection
        raise FetchFailed("The host of the address does not answer. Try again later.")


class _Timed(socket.socket):
    """Each read and write may take what is left until `end`: a server that drips a byte at a time gains nothing."""

    end: float

    def recv_into(self, *arguments: Any) -> int:
        """What http.client reads by."""
        self.settimeout(_left(self.end))
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        """What TLS sends a piece by."""
        self.settimeout(_left(self.end))
        return super().send(*arguments)


class _TimedTls(_Timed, ssl.SSLSocket):
    """The same over TLS."""


class _Call:
    """One request on one connection."""

    def __init__(self, connection: http.client.HTTPConnection, url: str) -> None:
        self._connection = connection
        self._parts = urlsplit(url)

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        path = self._parts.path or "/"
        target = f"{path}?{self._parts.query}" if self._parts.query else path
        try:
            agent = {"User-Agent": "bgbatch", "Host": self._parts.netloc, "Connection": "close"}
            self._connection.request(method, target, body, agent | dict(headers))
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError):
            raise FetchFailed("The address gave no answer that can be read, in time. Try again later.") from None

    def read(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read1(_PIECE)
        except (OSError, http.client.HTTPException, ValueError):
            raise FetchFailed("The address was too slow, or broke off. Try again later.") from None


def _asked_to_wait(answer: http.client.HTTPResponse) -> int | None:
    """Seconds after which a server that is asked too often may be asked again; None for others, and for a date."""
    said = answer.getheader("Retry-After") or ""
    is_number = said.isascii() and said.isdigit() and len(said) <= _MOST_DIGITS
    return int(said) if answer.status in _PASSING and is_number else None


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise FetchFailed(_TOO_SLOW)
    return left


def is_plain(url: str) -> bool:
    """Whether an address is written as it is sent: in printable ASCII, without spaces."""
    return url.isascii() and url.isprintable() and " " not in url


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:  # brackets without an address in them
        raise UnsafeAddress(_UNSAFE) from None


def _split(url: str) -> tuple[SplitResult, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise UnsafeAddress(_UNSAFE) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or not is_plain(url):
        raise UnsafeAddress(_UNSAFE)
    return parts, parts.hostname, port
