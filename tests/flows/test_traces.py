"""A batch's trace from submit to purge, at a real OTLP collector: one trace, the spans of every process, no name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from flows.engine import prepare
from flows.parts import open_parts, using
from schemas.clock import system_clock
from store.settings import Settings
from store.spans import _provider
from tests.flows.conftest import photo
from tests.flows.test_command_line import Shell, lay_out

SECRET = "grandmothers-portrait"


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    bodies: list[bytes]

    def spans(self) -> list[Span]:
        found: list[Span] = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += [each for each in scope.spans if any(a.key == "batch_id" for a in each.attributes)]
        return found


class _Keep(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector(("127.0.0.1", 0), _Keep)
    server.bodies = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_batch_is_one_trace_from_submit_to_purge_without_a_name(
    home: Path, tmp_path: Path, collector: Collector
) -> None:
    shell = Shell(home)
    url = f"http://127.0.0.1:{collector.server_port}"
    shell.env |= {"BGBATCH_TRACES_URL": url}
    shell.run("account", "create", SECRET, "--email", "owner@acme.example")
    folder = lay_out(tmp_path / SECRET, {f"{SECRET}/{number}.jpg": photo() for number in range(4)})
    said = json.loads(shell.run("submit", str(folder), "--account", SECRET, "--json"))
    batch = said["stamp"]["batch_id"]

    settings = Settings(home=home, traces_url=url)
    prepare(settings)
    from flows.cleanup import purge_what_is_due

    parts = open_parts(settings, system_clock)
    tomorrow = replace(parts, clock=lambda: system_clock() + timedelta(hours=24))
    with using(tomorrow):
        assert [each.subject for each in purge_what_is_due.fn().receipts] == [batch]
    _provider(settings.traces_url).force_flush()
    parts.records.engine.dispose()

    spans = collector.spans()
    names = [each.name for each in spans]
    assert {"submit", "seal", "shard", "admit", "finish", "purge"} == set(names)
    assert names.count("shard") == 2, "two calls of two photos, each told by its own actor"
    assert {each.trace_id for each in spans} == {UUID(batch).bytes}
    (first,) = [each for each in spans if each.name == "submit"]
    assert not first.parent_span_id
    known = {each.span_id for each in spans}
    assert all(each.parent_span_id in known for each in spans if each is not first)
    sent = b"".join(collector.bodies)
    assert SECRET.encode() not in sent
    assert b"owner@" not in sent


def test_without_a_collector_nothing_is_traced(tmp_path: Path) -> None:
    from store import spans

    with spans.span(Settings(home=tmp_path), "01a20f60-1afe-7ce2-a865-0a6976a259ec", "seal"):  # type: ignore[arg-type]
        assert not spans.trace.get_current_span().get_span_context().is_valid


def test_an_error_is_told_by_its_kind_alone(tmp_path: Path, collector: Collector) -> None:
    from store import spans

    settings = Settings(home=tmp_path, traces_url=f"http://127.0.0.1:{collector.server_port}")
    batch = "01a20f60-1afe-7ce2-a865-0a6976a259ec"
    with pytest.raises(OSError, match=SECRET), spans.span(settings, batch, "shard"):  # type: ignore[arg-type]
        raise FileNotFoundError(2, "no such file", f"{SECRET}.jpg")
    _provider(settings.traces_url).force_flush()
    (told,) = collector.spans()
    assert {each.key: each.value.string_value for each in told.attributes}["error"] == "FileNotFoundError"
    assert SECRET.encode() not in b"".join(collector.bodies)
