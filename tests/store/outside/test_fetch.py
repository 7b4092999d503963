"""An address that a customer names reaches the public internet or nothing."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from schemas.errors import FetchFailed, FileTooLarge, UnsafeAddress
from store.outside.fetch import Fetcher, FetchLimits, is_public
from tests.portal.certificates import certificate, for_server

LIMITS = FetchLimits(bytes=100_000, seconds=60.0, redirects=2)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "fd00:ec2::254", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "ff02::1", "fe80::1%eth0",
        "fec0::1", "feff::1", "2001:0:101:101:0:ffff:fefe:fefe", "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16",
    ],
)  # fmt: skip
def test_an_address_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "2002:101:101::", "64:ff9b::101:101"],
)
def test_an_address_outside_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://x.example/1", "gopher://x.example/", "http://", "http://user:pw@x.example/1",
        "http://127.0.0.1/1", "http://[::1]/1", "http://localhost/1", "http://2130706433/1", "http://0x7f.1/1",
        "http://169.254.169.254/latest/meta-data/", "http://x.example/a b", "http://x.example:99999/",
    ],
)  # fmt: skip
def test_an_unsafe_address_is_never_called(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises((UnsafeAddress, FetchFailed)):
        Fetcher(LIMITS).get(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://photos.example/1.jpg", "file:///etc/passwd", "http:///1.jpg", "http://user@photos.example/1.jpg",
        "http://photos.example:99999/", "http://photos.example/a b", "http://photos.example/\u00e4", "http://[1/",
        "http://photos.example/a\nb",
    ],
)  # fmt: skip
def test_an_address_that_is_written_in_another_way_is_not_even_looked_up(url: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("the name was looked up")

    with pytest.raises(UnsafeAddress):
        Fetcher(LIMITS, resolve=resolve).check(url)


def test_a_name_inside_is_told_no_differently_from_one_that_is_not_known() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror

    told = []
    for resolve in (unknown, lambda host, port: ["10.0.0.1"]):
        with pytest.raises(UnsafeAddress) as fault:
            Fetcher(LIMITS, resolve=resolve).check("http://db.internal/")
        told.append(str(fault.value))
    assert told[0] == told[1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer: Callable[[BaseHTTPRequestHandler], None] = self.server.answers[self.path]  # type: ignore[attr-defined]
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        answer(self)

    def log_message(self, *_: object) -> None:
        pass


def reply(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.seen = {}, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def fetcher(inside: set[str] = frozenset()) -> Fetcher:  # type: ignore[assignment]
    """Names of the tests lead to this machine; those in `inside` count as private."""
    addresses = {"photos.example": "127.0.0.1", "inside.example": "127.0.0.2"}
    return Fetcher(LIMITS, lambda ip: ip not in {"127.0.0.2", *inside}, lambda host, port: [addresses[host]])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_photo_is_fetched_and_a_redirect_followed(server: ThreadingHTTPServer, status: int) -> None:
    server.answers |= {"/a?b=1": reply(status, Location="/photo"), "/photo": reply(200, b"pixels")}  # type: ignore[attr-defined]
    assert fetcher().get(f"http://photos.example:{server.server_port}/a?b=1") == b"pixels"


def test_an_address_without_a_port_leads_to_that_of_its_scheme() -> None:
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["1.1.1.1"]

    for url in ("http://photos.example/1.jpg", "https://photos.example", "https://inside.example:8443/1.jpg"):
        Fetcher(LIMITS, resolve=resolve).check(url)
    assert asked == [("photos.example", 80), ("photos.example", 443), ("inside.example", 8443)]


def test_a_name_leads_where_the_system_says(server: ThreadingHTTPServer) -> None:
    server.answers |= {"/a": reply(200, b"pixels")}  # type: ignore[attr-defined]
    everywhere = Fetcher(LIMITS, lambda ip: True)
    everywhere.check("http://localhost/")
    assert everywhere.get(f"http://localhost:{server.server_port}/a") == b"pixels"
    with pytest.raises(UnsafeAddress):
        everywhere.check("http://no-such-name.invalid/")


def first_a_while(times: int, seconds: str, status: int = 429) -> Callable[[BaseHTTPRequestHandler], None]:
    """What a server that is asked too often answers so many times."""
    answers = iter([reply(status, Retry_After=seconds)] * times)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        next(answers, reply(200, b"pixels"))(handler)

    return answer


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_asked_too_often_is_asked_again_after_the_time_that_it_says(
    server: ThreadingHTTPServer, status: int
) -> None:
    server.answers |= {"/a": first_a_while(2, "0", status), "/b": first_a_while(1, "1", status)}  # type: ignore[attr-defined]
    assert fetcher().get(f"http://photos.example:{server.server_port}/a") == b"pixels"
    assert fetcher().get(f"http://photos.example:{server.server_port}/b") == b"pixels"


@pytest.mark.parametrize("seconds", ["61", "", "-1", "Fri, 27 Nov 2026 12:00:00 GMT", "9" * 5000, "0"])
def test_one_that_says_no_time_within_reach_is_said_to_pass_and_not_asked_without_end(
    server: ThreadingHTTPServer, seconds: str
) -> None:
    server.answers |= {"/a": first_a_while(100, seconds)}  # type: ignore[attr-defined]
    with pytest.raises(FetchFailed, match=r"answered 429\. Try again later"):
        fetcher().get(f"http://photos.example:{server.server_port}/a")
    assert len(server.seen) == (3 if seconds == "0" else 1)  # type: ignore[attr-defined]


def test_a_redirect_to_the_inside_is_not_followed(server: ThreadingHTTPServer) -> None:
    target = f"http://inside.example:{server.server_port}/secret"
    server.answers |= {"/a": reply(302, Location=target), "/secret": reply(200, b"secret")}  # type: ignore[attr-defined]
    with pytest.raises(UnsafeAddress):
        fetcher().get(f"http://photos.example:{server.server_port}/a")
    assert server.seen == ["/a"]  # type: ignore[attr-defined]


def test_a_redirect_to_a_file_is_not_followed(server: ThreadingHTTPServer) -> None:
    server.answers |= {"/a": reply(302, Location="file:///etc/passwd")}  # type: ignore[attr-defined]
    with pytest.raises(UnsafeAddress):
        fetcher().get(f"http://photos.example:{server.server_port}/a")


def test_a_name_with_one_private_address_among_public_ones_is_refused(server: ThreadingHTTPServer) -> None:
    mixed = Fetcher(LIMITS, lambda ip: ip != "127.0.0.2", lambda host, port: ["127.0.0.1", "127.0.0.2"])
    with pytest.raises(UnsafeAddress):
        mixed.get(f"http://photos.example:{server.server_port}/a")


def test_the_name_is_resolved_once_so_that_a_second_answer_cannot_differ(server: ThreadingHTTPServer) -> None:
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    server.answers |= {"/a": reply(200, b"x")}  # type: ignore[attr-defined]
    assert (
        Fetcher(LIMITS, lambda ip: ip != "127.0.0.2", rebinding).get(f"http://photos.example:{server.server_port}/a")
        == b"x"
    )
    assert asked == ["photos.example"]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"/a": reply(200, bytes(100_001))}, FileTooLarge),
        ({"/a": reply(200, b"", Content_Length="999999999")}, FileTooLarge),
        ({"/a": reply(200, b"half", Content_Length="50")}, FetchFailed),
        ({"/a": reply(404)}, FetchFailed),
        ({"/a": reply(302, Location="/a")}, FetchFailed),
        ({"/a": reply(302, Location="http://[")}, UnsafeAddress),
        ({"/a": reply(200, b"", Content_Length="9" * 5000)}, FileTooLarge),
    ],
)
def test_what_is_too_much_or_too_little_is_an_error_of_the_photo(
    server: ThreadingHTTPServer, answers: dict[str, object], error: type[Exception]
) -> None:
    server.answers |= answers  # type: ignore[attr-defined]
    with pytest.raises(error):
        fetcher().get(f"http://photos.example:{server.server_port}/a")


@pytest.mark.parametrize("headers", [{}, {"Content_Length": "100000"}])
def test_what_is_as_large_as_the_limit_is_fetched(server: ThreadingHTTPServer, headers: dict[str, str]) -> None:
    server.answers |= {"/a": reply(200, bytes(100_000), **headers)}  # type: ignore[attr-defined]
    assert len(fetcher().get(f"http://photos.example:{server.server_port}/a")) == 100_000


def test_a_length_in_digits_of_another_script_is_none(server: ThreadingHTTPServer) -> None:
    server.answers |= {"/a": reply(200, b"pixels", Content_Length="\u00b2")}  # type: ignore[attr-defined]
    assert fetcher().get(f"http://photos.example:{server.server_port}/a") == b"pixels"


def test_an_address_that_swallows_all_leaves_the_others_of_its_name_their_time(server: ThreadingHTTPServer) -> None:
    server.answers |= {"/a": reply(200, b"pixels")}  # type: ignore[attr-defined]
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.2", server.server_port))
        full.listen(0)
        waiting.connect(full.getsockname())  # and no other gets an answer
        both = Fetcher(FetchLimits(bytes=10, seconds=8), lambda ip: True, lambda *_: ["127.0.0.2", "127.0.0.1"])
        assert both.get(f"http://photos.example:{server.server_port}/a") == b"pixels"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_says_nothing_is_given_up_in_time(scheme: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        quick = Fetcher(FetchLimits(bytes=10, seconds=0.3), lambda ip: True, lambda host, port: ["127.0.0.1"])
        with pytest.raises(FetchFailed):
            quick.get(f"{scheme}://photos.example:{silent.getsockname()[1]}/a")


def test_a_name_that_nobody_answers_for_is_given_up_in_time_and_keeps_no_thread_for_each_try() -> None:
    asked, answered = [], threading.Event()

    def silent(host: str, port: int) -> list[str]:
        asked.append(host)
        answered.wait(600)
        return ["127.0.0.1"]

    quick = Fetcher(FetchLimits(bytes=10, seconds=0.3), lambda ip: True, silent)
    before = threading.active_count()
    try:
        with ThreadPoolExecutor(100) as readers:
            for each in [readers.submit(quick.get, "http://photos.example/a") for _ in range(200)]:
                with pytest.raises(FetchFailed, match="too slow"):
                    each.result(300)
        with pytest.raises(FetchFailed, match="too slow"):
            quick.check("http://photos.example/a")
        assert not answered.is_set()
        assert len(asked) <= 64
        assert threading.active_count() <= before + 64
    finally:
        answered.set()
    Fetcher(LIMITS, lambda ip: True, silent).check("http://photos.example/a")


WHOLE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"


class Dripper(socketserver.StreamRequestHandler):
    """Says a whole answer, but from some byte on a byte at a time, each well within the limit."""

    def handle(self) -> None:
        quick: int = self.server.quick  # type: ignore[attr-defined]
        with suppress(OSError):
            self.connection.recv(65_536)
            self.connection.sendall(WHOLE[:quick])
            for byte in WHOLE[quick:]:
                time.sleep(0.1)
                self.connection.sendall(bytes([byte]))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("quick", [0, WHOLE.index(b"Transfer"), WHOLE.index(b"1\r\nx")])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_server_that_drips_an_answer_is_given_up_in_time(
    method: str, quick: int, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "post" and quick > WHOLE.index(b"\r\n\r\n"):
        return  # a post is over with the headers
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripper)
    if scheme == "https":
        server.socket = for_server(file).wrap_socket(server.socket, server_side=True)
    server.quick, server.daemon_threads = quick, True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"{scheme}://localhost:{server.server_address[1]}/a"
    quickly = Fetcher(FetchLimits(bytes=10, seconds=0.3), lambda ip: True, lambda host, port: ["127.0.0.1"])
    try:
        with pytest.raises(FetchFailed):
            _ = quickly.get(url) if method == "get" else quickly.post(url, b"{}", {})
        patient = Fetcher(FetchLimits(bytes=10, seconds=60), lambda ip: True, lambda host, port: ["127.0.0.1"])
        server.quick = len(WHOLE)  # type: ignore[attr-defined]
        assert (patient.get(url), patient.post(url, b"{}", {})) == (b"x", 200)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("is_trusted", [True, False])
def test_nothing_is_sent_to_a_server_whose_certificate_is_not_that_of_its_name(
    is_trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = for_server(file).wrap_socket(server.socket, server_side=True)
    server.answers, server.seen = {"/a": reply(200, b"pixels")}, []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    anywhere = Fetcher(LIMITS, lambda ip: True, lambda host, port: ["127.0.0.1"])
    try:
        for host, may in (("localhost", is_trusted), ("photos.example", False)):
            url = f"https://{host}:{server.server_port}/a"
            if may:
                assert anywhere.get(url) == b"pixels"
            else:
                with pytest.raises(FetchFailed, match="certificate"):
                    anywhere.get(url)
        assert server.seen == ["/a"] * is_trusted  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_of_the_photo(answer: bytes) -> None:
    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.connection.recv(65_536)
            self.connection.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with pytest.raises(FetchFailed):
            fetcher().get(f"http://photos.example:{server.server_address[1]}/a")
        server.shutdown()
