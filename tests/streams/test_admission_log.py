from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from processors.limit_rate import Admissions
from schemas.events import JobAdmitted, ms_from_utc
from schemas.requests import ChatRequest
from streams.admission_log import _remember
from tests.factories import job_admitted


def record(value: bytes | None, *, offset: bytes | None = b"7", event_id: bytes | None = b"e-7") -> Any:
    headers = [("source-offset", offset), ("source-id", event_id)]
    return SimpleNamespace(headers=headers, value=value, offset=3)


def test_an_admission_is_remembered_by_its_source() -> None:
    memory = Admissions(0, 10)
    event = job_admitted()
    _remember(memory, record(event.model_dump_json().encode()))
    assert memory.of("alice") == [(ms_from_utc(event.job.accepted_at), 7, "e-7")]


@pytest.mark.parametrize("value", [b"{", b"\xff", None, b'{"job": {"user_id": "alice"}}', b'"Tell me a secret"'])
def test_what_is_no_admission_is_passed_over(value: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    _remember(Admissions(0, 10), record(value))  # or the gate would end, and again after every restart
    (line,) = [line.getMessage() for line in caplog.records]
    assert line == "job-admitted: the record at offset 3 is no admission and is passed over"
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("offset", "event_id"), [
    (None, b"e"), (b"7", None), (b"-7", b"e"), (b"x", b"e"), ("²".encode(), b"e"), (b"9" * 5000, b"e"),
])  # fmt: skip
def test_what_says_no_source_is_somebody_elses(offset: bytes | None, event_id: bytes | None) -> None:
    memory = Admissions(0, 10)
    _remember(memory, record(job_admitted().model_dump_json().encode(), offset=offset, event_id=event_id))
    assert memory.of("alice") == []


def test_an_error_about_an_event_does_not_hold_what_stood_in_it() -> None:
    fields = job_admitted().model_dump(mode="json")
    fields["job"]["accepted_at"] = fields["request"]["temper"] = "the secret"
    with pytest.raises(ValidationError) as caught:
        JobAdmitted.model_validate(fields)
    assert {error["loc"][-1] for error in caught.value.errors()} == {"accepted_at", "temper"}
    assert "secret" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"prompt": ["the secret"]})
    assert "secret" not in str(caught.value)
