"""OpenTelemetry traces, where `BGBATCH_TRACES_URL` asks for them: one trace for each batch, from submit to purge.

The trace's id is the batch's id, and its first span's id follows from it. So every process (portal, dispatcher, Ray
actor, cleanup) adds its spans to the same trace, and nothing is stored or handed on. Attributes are ids, numbers and
codes; what an exception says is left out, because it may quote anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from schemas.errors import BgbatchError, UserError
from schemas.ids import BatchId
from store.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Fact = str | int | float | bool
_first: ContextVar[BatchId | None] = ContextVar("first", default=None)
_EXPORT_EVERY = 1_000  # milliseconds; a worker may be killed at any moment


@contextmanager
def span(settings: Settings, batch_id: BatchId, name: str, **facts: Fact) -> Iterator[None]:
    """The work of this block, as part of the batch's trace. Without a collector in the settings: nothing."""
    if not settings.traces_url:
        yield
        return
    tracer = _provider(settings.traces_url).get_tracer("bgbatch")
    with tracer.start_as_current_span(
        name,
        context=_inside(batch_id),
        attributes={"batch_id": batch_id, **facts},
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            code = error.code if isinstance(error, BgbatchError) else type(error).__name__
            current.set_attribute("error", code)
            current.set_status(StatusCode.ERROR)
            raise


def note_submit(settings: Settings, batch_id: BatchId, began: datetime, ended: datetime) -> None:
    """The batch's first span, which is over, and which all else of it stands under."""
    token = _first.set(batch_id)
    try:
        note_span(settings, batch_id, "submit", began, ended)
    finally:
        _first.reset(token)


def note_span(
    settings: Settings, batch_id: BatchId, name: str, began: datetime, ended: datetime, **facts: Fact
) -> None:
    """Work that is over."""
    if not settings.traces_url:
        return
    tracer = _provider(settings.traces_url).get_tracer("bgbatch")
    attributes = {"batch_id": batch_id, **facts}
    made = tracer.start_span(name, _inside(batch_id), attributes=attributes, start_time=_nanoseconds(began))
    made.end(_nanoseconds(ended))


@cache
def _provider(url: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError:
        raise UserError("BGBATCH_TRACES_URL needs more packages: pip install 'bgbatch[traces]'.") from None

    class Ids(RandomIdGenerator):
        """Random ones, except for a batch's first span."""

        def generate_trace_id(self) -> int:
            first = _first.get()
            return super().generate_trace_id() if first is None else UUID(first).int

        def generate_span_id(self) -> int:
            first = _first.get()
            return super().generate_span_id() if first is None else _first_span(first)

    provider = TracerProvider(resource=Resource({"service.name": "bgbatch"}), id_generator=Ids())
    exporter = OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY))
    return provider


def _inside(batch_id: BatchId) -> Context | None:
    """Under this process's span that is open for the batch, or else under the batch's first, which is under none."""
    if _first.get() is not None:
        return trace.set_span_in_context(trace.INVALID_SPAN)
    here = trace.get_current_span().get_span_context()
    if here.trace_id == UUID(batch_id).int:
        return None
    first = SpanContext(UUID(batch_id).int, _first_span(batch_id), is_remote=True, trace_flags=TraceFlags(1))
    return trace.set_span_in_context(NonRecordingSpan(first))


def _first_span(batch_id: BatchId) -> int:
    return int.from_bytes(hashlib.sha256(batch_id.encode()).digest()[:8]) or 1


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
