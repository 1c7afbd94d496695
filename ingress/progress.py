"""Where a running job is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.events import DocumentProgress, JobProgressed


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running job is. `state`: as in `JobProgressed`; `attempts`: the tries so far, where they were told.

    `at`: when that was so; `document`, `training`: how far it is; `code`: why it waits, or is tried again.
    """

    user_id: str
    stage: str
    state: str
    retry_at: datetime | None
    attempts: list[dict[str, Any]] | None
    at: datetime
    document: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    code: str | None = None


def forward(event: JobProgressed, before: JobProgressed | None) -> JobProgressed:
    """The event, in which a document is no less far than `before`.

    Two stages count a document's pages and chunks, each with its own producer, so the older count may come last.
    """
    now, known = event.document, before.document if before is not None and before.run == event.run else None
    if now is None or known is None:
        return event
    most = DocumentProgress(
        pages=max(now.pages, known.pages), pages_total=_known(now.pages_total, known.pages_total),
        chunks=max(now.chunks, known.chunks), chunks_total=_known(now.chunks_total, known.chunks_total),
    )  # fmt: skip
    return event.model_copy(update={"document": most})


def _known(now: int | None, before: int | None) -> int | None:
    return before if now is None else now
