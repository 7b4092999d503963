"""Ctrl-C in mid transaction: whoever cleans up before the program ends can write."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm
from sqlalchemy import text

from store.records import database as module
from store.records.database import Records, open_records
from store.uninterrupted import uninterrupted
from tests.records import at_home


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """Ctrl-C, and SIGTERM, as a command has them that a terminal started."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Nothing is collected at a moment of its own: what a finalizer raises, Ctrl-C too, nobody hears of."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def write(records: Records) -> None:
    with records.transaction() as connection:
        connection.execute(text("INSERT INTO probe VALUES (1)"))


def interrupt_at(step: int, records: Records, number: signal.Signals) -> tuple[KeyboardInterrupt | None, int]:
    """Write, with this signal at a step (call, line, return) of all that this runs; and how many of those there are."""
    seen = 0

    def trace(_frame: FrameType, _event: str, _what: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == step:
            signal.raise_signal(number)
        return trace

    sys.settrace(trace)
    try:
        write(records)
    except KeyboardInterrupt as stopped:
        return stopped, seen
    finally:
        sys.settrace(None)
    return None, seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_at_any_step_of_a_transaction_leaves_the_records_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_garbage: None, number: signal.Signals
) -> None:
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0)  # whoever would have to wait fails
    records = open_records(at_home(tmp_path))
    with records.transaction() as connection:
        connection.execute(text("CREATE TABLE probe (n INTEGER)"))
    assert records._turn is not None
    stops, step = 0, 0
    while True:
        step += 1
        stopped, seen = interrupt_at(step, records, number)
        assert not records._turn.locked(), f"step {step}"
        write(records)  # while `stopped`, and with it every frame of the transaction, is alive
        if seen < step:
            break
        stops += stopped is not None
        if step % 50 == 0:
            gc.collect()
    assert stops == step - 1, "it was swallowed"


def test_the_second_ctrl_c_waits_for_nothing() -> None:
    reached: list[str] = []

    def press_twice() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            reached.append("after the first")
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert reached == ["after the first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_in_a_flow_of_prefects_waits_too() -> None:
    reached: list[str] = []

    def stop() -> None:
        with capture_sigterm(), uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            reached.append("the end")

    with pytest.raises((TerminationSignal, KeyboardInterrupt)):
        stop()
    assert reached == ["the end"]


def test_who_handles_ctrl_c_in_a_way_of_its_own_goes_on_doing_so() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]
