"""The log: one JSON object a line, with ids to find things by, and never a name."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from flows.dispatch import Dispatcher
from flows.parts import Parts
from schemas.batch import Counts
from schemas.errors import StoreFault
from schemas.ids import BatchId
from store import logs
from tests.api.conftest import new_desk, shards_of
from tests.batches import run_batch

SECRET = "grandmothers-portrait"


class Written(io.StringIO):
    """What a process that logs JSON writes to stderr."""

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def written() -> Iterator[Written]:
    stream = Written()
    logs.set_up("json", stream)
    yield stream
    logs.set_up("text")


def test_a_request_is_a_line_with_its_ids_and_without_its_names(tmp_path: Path, written: Written) -> None:
    desk = new_desk(tmp_path / "home")
    batch = desk.open()
    answer = desk.call("PUT", f"/batches/{batch}/items/{SECRET}/1.jpg?token={SECRET}", content=b"x")
    line = written.lines[-1]
    assert {name: line[name] for name in ("message", "method", "status", "route", "batch_id", "account_id")} == {
        "message": "request",
        "method": "PUT",
        "status": 201,
        "route": "/v1/batches/{batch_id}/items/{path:path}",
        "batch_id": batch,
        "account_id": desk.accounts["Acme"][0],
    }
    assert line["request_id"] == answer.headers["x-request-id"]
    desk.client.get(f"/{SECRET}")
    desk.client.get(f"/sign-in/{SECRET}")
    assert [each["route"] for each in written.lines[-2:]] == ["unknown", "/sign-in/{token}"]
    assert SECRET not in written.getvalue()
    assert desk.client.post(desk.links["Acme"]).status_code == 200
    for path in ("/account", "/v1/batches"):
        assert desk.client.get(path).status_code == 200
        assert written.lines[-1]["account_id"] == desk.accounts["Acme"][0], "of whoever is signed in, too"
    assert desk.links["Acme"].removeprefix("/sign-in/") not in written.getvalue()
    desk.parts.records.engine.dispose()


def test_a_turn_of_work_is_told_by_its_batch(tmp_path: Path, written: Written) -> None:
    desk = new_desk(tmp_path / "home")
    batch = desk.send({f"{SECRET}.jpg": b"no image"})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        return run_batch(parts, batch_id, shards_of(parts))

    assert Dispatcher(desk.parts, "one", process, threading.Event()).take_turn()
    told = [each for each in written.lines if each["logger"] == "flows.dispatch"]
    assert [each["batch_id"] for each in told] == [batch, batch]
    assert SECRET not in written.getvalue()
    desk.parts.records.engine.dispose()


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_an_exception_says_is_not_written_but_where_it_was(form: str, written: Written) -> None:
    logs.set_up(form, written)
    try:
        raise OSError(2, "no such file", f"{SECRET}.jpg")
    except OSError:
        logging.getLogger("uvicorn.error").exception("something broke")
    said = written.getvalue()
    assert SECRET not in said
    assert "FileNotFoundError" in said
    assert "test_logs.py" in said


def test_a_fault_that_has_a_sentence_of_its_own_takes_one_line_for_people(written: Written) -> None:
    logs.set_up("text", written)
    try:
        raise StoreFault("The disk is full. Make room.")
    except StoreFault as fault:
        logging.getLogger("prefect.task_runs").exception("Task run failed: %s", fault)
    assert written.getvalue() == "ERROR prefect.task_runs: Task run failed: The disk is full. Make room.\n"


def test_records_that_are_away_take_no_trace_of_seventy_lines_at_each_cleanup(written: Written) -> None:
    logs.set_up("text", written)
    try:
        raise OperationalError(None, None, Exception("connection refused"))
    except OperationalError as fault:
        logging.getLogger("prefect.task_runs").exception("Task run failed with exception: %s", fault)
    (line, *more) = written.getvalue().splitlines()
    assert "connection refused" in line
    assert not [each for each in more if each.startswith("File ")]


def test_a_store_that_is_away_is_told_in_the_log_and_customers_may_ask_again(tmp_path: Path, written: Written) -> None:
    desk = new_desk(tmp_path / "home")
    batch, sent = desk.open(), desk.send({f"{SECRET}.jpg": b"x"})
    desk.client.post(desk.links["Acme"])
    logs.set_up("text", written)
    store = tmp_path / "home" / "transient"
    store.rename(tmp_path / "elsewhere")
    store.touch()
    answer = desk.call("PUT", f"/batches/{batch}/items/{SECRET}.jpg", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_fault")
    assert desk.client.get(f"/batches/{sent}").status_code == 503
    said = written.getvalue()
    assert "WARNING portal.api.problems: store_fault: The object store refused to read: " in said
    assert "WARNING portal.web.app: store_fault: The object store refused to " in said
    assert SECRET not in said
    desk.parts.records.engine.dispose()


def test_that_rays_token_is_on_is_no_news_and_that_it_is_off_is(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)  # Ray keeps its lines to itself once it has run
    logger = logging.getLogger("ray._private.authentication.authentication_token_setup")
    logger.warning("Token authentication is enabled for this Ray cluster. Set RAY_AUTH_MODE=disabled to opt out.")
    logger.warning("Token authentication is disabled for this Ray cluster.")
    assert [line["message"] for line in written.lines] == ["Token authentication is disabled for this Ray cluster."]


def test_a_flow_that_was_stopped_is_no_crash_and_a_real_one_is(written: Written) -> None:
    logger = logging.getLogger("prefect.flow_runs")
    for why in ("aborted by an interrupt signal.", "aborted by a termination signal.", "of memory."):
        logger.error("Crash detected! Execution was %s", why)
        logger.error("Finished in state Crashed('Execution was %s')", why)
    said = written.getvalue()
    assert "of memory" in said
    assert "signal" not in said
