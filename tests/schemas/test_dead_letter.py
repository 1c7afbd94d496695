import json
from datetime import UTC, datetime
from uuid import uuid4

from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from processors.stage import DeadLetter
from schemas.dead_letter import DeadLettered, original_headers
from schemas.envelope import Record
from schemas.topics import Catalog
from streams.encode import Encoder
from tests.factories import NOW, job

Headers = list[tuple[str, bytes | None]]


def written(headers: Headers, *, outcome_id: str | None = "o-1", **more) -> Record:
    record = ConsumerRecord("t", 3, 7, 0, 0, b"k", b"v", None, 1, 1, headers)
    letter = DeadLetter("a-code", "a reason")
    return Encoder(Catalog.load()).dead_letter(record, letter, stage="a_stage", outcome_id=outcome_id, at=NOW, **more)


def read(headers, value: bytes | None = b"v", timestamp_ms: int = 1_700_000_000_000) -> DeadLettered:
    return DeadLettered.parse(
        partition=0, offset=5, timestamp_ms=timestamp_ms, key=b"k", value=value, headers=headers
    )  # fmt: skip


def test_what_the_server_writes_is_read() -> None:
    of = job(run=2)
    letter = read(written([("ce_id", b"e")], job=of).headers)
    assert (letter.topic, letter.stage, letter.code, letter.reason) == ("t", "a_stage", "a-code", "a reason")
    assert (letter.job_id, letter.run, letter.user_id) == (of.job_id, 2, "alice")
    assert (letter.outcome_id, letter.attempts) == ("o-1", 1)
    assert letter.at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_headers_that_came_with_the_record_are_not_taken_for_ours() -> None:
    forged: Headers = [
        ("dlq-topic", b"user-updated"), ("dlq-outcome-id", b"somebody's"), ("dlq-job-id", str(uuid4()).encode()),
        ("dlq-run", b"9"),
    ]  # fmt: skip
    headers = written(forged, outcome_id=None).headers
    letter = read(headers)
    assert (letter.topic, letter.outcome_id, letter.job_id, letter.run) == ("t", None, None, None)
    assert original_headers(headers) == forged


def test_a_record_that_was_no_event_is_found_by_its_job_where_that_can_be_read() -> None:
    of = job(run=4)
    value = json.dumps({"job": {"job_id": str(of.job_id), "run": 4, "user_id": "a\x00b"}}).encode()
    letter = read(written([], outcome_id=None).headers, value)
    assert (letter.job_id, letter.run, letter.user_id) == (of.job_id, 4, "ab")
    assert letter.outcome_id is None


NAMES = st.sampled_from(["dlq-topic", "dlq-run", "dlq-job-id", "dlq-attempts", "dlq-code"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
VALUES = (
    st.binary(max_size=30)
    | st.recursive(st.none() | st.integers() | st.text(), lambda of: st.dictionaries(st.sampled_from(
        ["job", "job_id", "run", "user_id"]), of)).map(lambda value: json.dumps(value).encode())
)  # fmt: skip


@given(
    headers=st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=20) | st.integers().map(lambda n: b"%d" % n))),
    value=st.none() | VALUES,
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
)
def test_any_bytes_are_read_and_fit_the_columns(headers, value, timestamp_ms) -> None:
    letter = read(headers, value, timestamp_ms)
    texts = [letter.topic, letter.stage, letter.code, letter.reason, letter.user_id or "", letter.outcome_id or ""]
    assert all("\x00" not in text and len(text) <= 1000 and text.encode() is not None for text in texts)
    assert 0 <= letter.attempts < 2**31
    assert letter.run is None or 0 <= letter.run < 2**31
    assert letter.at.tzinfo is UTC
