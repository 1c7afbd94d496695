"""How far a document or a training is, as it is polled: the last word on it stays while others are said."""

from datetime import UTC, datetime
from typing import Any

from ingress.follower import Follower
from schemas.events import DocumentProgress, JobProgressed, TrainingProgressed
from sinks.postgres import JobRow
from tests.factories import ACCEPTED_AT, job, job_finished
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


async def test_a_count_that_comes_late_takes_nothing_back() -> None:
    follower = Follower(KafkaAccess("nowhere:1"), progressed="p", finished="f", store=None)
    polled: list[Any] = []
    streamed: list[Any] = []
    with follower.watch(JOB.job_id) as watch:
        watch.on_progress = lambda event: streamed.append(event.model_dump(exclude_none=True)["document"])
        for run, document in (
            (1, DocumentProgress(pages=2, chunks=64, chunks_total=250)),
            (1, DocumentProgress(pages=3, pages_total=3, chunks=0)),  # read before, told after: of the other stage
            (2, DocumentProgress(pages=1)),  # from the beginning
        ):
            follower._take_progressed(KEY, told("working", run=run, document=document))
            progress = follower.progress(JOB.job_id)
            polled.append(progress and progress.document)
    assert polled == [
        {"pages": 2, "chunks": 64, "chunks_total": 250},
        {"pages": 3, "pages_total": 3, "chunks": 64, "chunks_total": 250},
        {"pages": 1, "chunks": 0},
    ]
    assert streamed == polled


def test_a_training_is_polled_with_how_far_it_is() -> None:
    follower = Follower(KafkaAccess("nowhere:1"), progressed="p", finished="f", store=None)
    far = TrainingProgressed(epoch=1, epochs=3, step=4, steps=30, loss=2.5, elapsed_s=9.5)
    follower._take_progressed(KEY, told("working", training=far))
    follower._take_progressed(KEY, told("started"))
    progress = follower.progress(JOB.job_id)
    assert progress is not None
    row = JobRow(
        job_id=JOB.job_id, run=1, user_id="alice", kind="training", status="pending", result=None, error=None,
        attempts=None, timings=None, metadata=None, accepted_at=ACCEPTED_AT, expires_at=ACCEPTED_AT, finished_at=None,
    )  # fmt: skip
    view = row.view(stage=progress.stage, state=progress.state, document=progress.document, training=progress.training)
    assert view["training"] == {"epoch": 1, "epochs": 3, "step": 4, "steps": 30, "loss": 2.5, "elapsed_s": 9.5}
    assert "document" not in view
