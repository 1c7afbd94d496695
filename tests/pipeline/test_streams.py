"""Answers piece by piece: on their topic, and to whoever listens, now or later."""

import uuid

import pytest

from schemas.events import CompletionStreamed
from tests.deployment import client_of
from tests.pipeline.conftest import Running

pytestmark = pytest.mark.integration


async def test_an_answer_that_takes_time_is_told_on_its_topic_and_its_row_says_where(running: Running) -> None:
    async with client_of(running.ingress) as client:
        reply = await client.post("/chat/", json={"prompt": f"[tokens=60][pace=0.01] {uuid.uuid4()}"})
    assert reply.status_code == 200, reply.text
    job_id = uuid.UUID(reply.json()["meta"]["job_id"])
    records = [
        record
        for record in await running.deployment.records("completion-streamed")
        if record.key == str(job_id).encode()
    ]
    events = [CompletionStreamed.model_validate_json(record.value) for record in records]
    assert "".join(event.text for event in events) == reply.json()["result"]["text"]
    assert [event.sequence for event in events] == list(range(len(events)))
    assert len(events) < 20
    row = (await running.deployment.finished_rows())[job_id]
    assert row["stream"] is not None
    where = uuid.UUID(row["stream"]["execution"]), row["stream"]["first_offset"], row["stream"]["last_offset"]
    assert where == (events[0].execution, records[0].offset, records[-1].offset)


async def test_an_answer_that_comes_at_once_costs_no_record(running: Running) -> None:
    async with client_of(running.ingress) as client:
        reply = await client.post("/chat/", json={"prompt": f"quick {uuid.uuid4()}"})
    assert reply.status_code == 200, reply.text
    keys = {record.key for record in await running.deployment.records("completion-streamed")}
    assert reply.json()["meta"]["job_id"].encode() not in keys
