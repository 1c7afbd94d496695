"""How far a document is, as it is polled: the last word on it stays while others are said."""

from datetime import UTC, datetime
from typing import Any

from ingress.follower import Follower
from schemas.events import DocumentProgress, JobProgressed
from tests.factories import job, job_finished
from transport.clients import KafkaAccess

JOB = job(kind="document")
KEY = str(JOB.job_id).encode()


def told(state: Any, **more: Any) -> bytes:
    event = JobProgressed(
        job_id=JOB.job_id, user_id=JOB.user_id, stage="embed_chunks", state=state, at=datetime.now(UTC), **more
    )
    return event.model_dump_json(exclude_none=True).encode()


def test_the_last_word_on_a_document_stays_until_its_job_ends() -> None:
    follower = Follower(KafkaAccess("nowhere:1"), progressed="p", finished="f", store=None)

    def document() -> Any:
        progress = follower.progress(JOB.job_id)
        return progress and progress.document

    follower._take_progressed(KEY, told("started"))
    assert document() is None
    follower._take_progressed(KEY, told("working", document=DocumentProgress(pages=2, chunks=32, chunks_total=70)))
    assert document() == {"pages": 2, "chunks": 32, "chunks_total": 70}
    follower._take_progressed(KEY, told("started"))  # the next batch
    assert document() == {"pages": 2, "chunks": 32, "chunks_total": 70}
    follower._take_finished(KEY, job_finished(job=JOB).model_dump_json().encode())
    assert follower.progress(JOB.job_id) is None
    follower._take_progressed(KEY, told("started"))
    assert document() is None
