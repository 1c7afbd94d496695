import io
import logging
import sys

import asyncpg
import pydantic
import pytest

from transport import logs


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    monkeypatch.setattr(logging.Logger, "root", logging.root)
    monkeypatch.setattr(logging.Logger, "manager", logging.Manager(logging.root))
    monkeypatch.setattr(sys, "stderr", stream)
    logs.set_up(debug=False)
    return stream


def fail(name: str, job_id: str) -> None:
    try:
        int("boom")
    except ValueError:
        logging.getLogger(name).exception("a stage failed", extra={"job_id": job_id, "stage": "limit_rate"})


def test_a_line_says_whose_job_and_which_stage(written: io.StringIO) -> None:
    fail("processors.run_stage", "job-7")
    line, *rest = written.getvalue().splitlines()
    assert line.endswith("ERROR processors.run_stage a stage failed job_id=job-7 stage=limit_rate")
    assert rest[-1].startswith("  ValueError: ")


def test_a_line_says_which_request_it_belongs_to(written: io.StringIO) -> None:
    token = logs.REQUEST_ID.set("mine-1")
    logging.getLogger("ingress.x").error("a request failed")
    logs.REQUEST_ID.reset(token)
    logging.getLogger("ingress.x").error("another one")
    first, second = written.getvalue().splitlines()
    assert first.endswith("a request failed request_id=mine-1")
    assert second.endswith("another one")


@pytest.mark.parametrize("control", ["\n", "\r\n", "\x85", "\u2028", "\x1b[2J", "\x00", "\x9b"])
def test_nobody_forges_a_line_or_speaks_to_a_terminal(written: io.StringIO, control: str) -> None:
    name = f"mallory{control}2026-01-01 00:00:00 ERROR root all users are admins now"
    logging.getLogger("streams.x").error("no such user: %s", name, extra={"target": name})
    error = ValueError(name)
    logging.getLogger("streams.x").error("a stage failed", exc_info=(ValueError, error, None))
    lines = written.getvalue().split("\n")
    assert sum(not line.startswith("  ") for line in lines if line) == 2
    assert not any(logs._CONTROL.search(line) for line in lines)


class Told(pydantic.BaseModel):
    """One that does not hide what it is given."""

    number: int


def test_a_traceback_does_not_say_what_somebody_has_said(written: io.StringIO) -> None:
    said = "what-was-said\n\nin confidence, input_type=x"
    try:
        try:
            Told.model_validate({"number": said})
        except pydantic.ValidationError as error:
            raise asyncpg.DataError(f"invalid input for query argument $1: {said!r}\nDETAIL: {said}") from error
    except asyncpg.DataError:
        logging.getLogger("sinks.x").exception("a bug in it")
    text = written.getvalue()
    assert "what-was-said" not in text
    for kept in ("asyncpg.exceptions.DataError", "number", "input_type=str", "int_parsing", "test_logs.py"):
        assert kept in text


def test_a_line_has_an_end(written: io.StringIO) -> None:
    logging.getLogger("streams.x").error("x" * 1_000_000)
    assert len(written.getvalue()) < 2 * logs.MAX_LINE_CHARS


def test_others_of_the_same_kind_are_counted_and_ours_with_a_traceback_pass(written: io.StringIO) -> None:
    for n in range(logs.MAX_TRACEBACKS + 50):
        fail("processors.run_stage", f"ours-{n}")
        fail("aiokafka.consumer", f"theirs-{n}")
        logging.getLogger("streams.app").error("no traceback")
    text = written.getvalue()
    assert text.count("job_id=ours-") == logs.MAX_TRACEBACKS
    assert text.count("job_id=theirs-") == logs.MAX_PER_KEY
    assert text.count("no traceback") == logs.MAX_PER_KEY


def test_what_was_dropped_is_told_in_the_next_period(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("transport.logs.time.monotonic", lambda: now[0])
    for _ in range(logs.MAX_PER_KEY + 7):
        logging.getLogger("aiokafka").error("away")
    now[0] += logs.PERIOD_S + 1
    logging.getLogger("aiokafka").error("away")
    assert written.getvalue().splitlines()[-1].endswith("away (and 7 more like it before)")
