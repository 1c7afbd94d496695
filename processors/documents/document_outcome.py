"""What the stages of documents say at the end, whichever of them comes last."""

from datetime import datetime
from typing import Any

from processors.documents.document_ports import Same, Version
from processors.errors import PermanentError
from processors.stage import Emit
from schemas.events import ChunksPrepared, DocumentReceived, JobError, JobFinished

OF_DOCUMENTS = "document-"  # codes of what is wrong with a document, and not with us


def ingested(event: DocumentReceived | ChunksPrepared, made: Version | Same, *, at: datetime) -> Emit:
    """The job's outcome: `{status: "ok", document_id, num_chunks, version_id, pages, meta}`.

    With `unchanged: true` where the content was there already.
    """
    result: dict[str, Any] = {
        "status": "ok", "document_id": str(made.document_id), "num_chunks": made.chunks,
        "version_id": str(made.version_id), "pages": made.pages,
        "meta": {"provider": event.provider, "job_id": str(event.job.job_id)},
    }  # fmt: skip
    if isinstance(made, Same):
        result["unchanged"] = True
    return Emit((JobFinished.completed(event.job, result=result, at=at, rate_limit=event.rate_limit),))


def not_ingested(event: DocumentReceived | ChunksPrepared, error: PermanentError, *, at: datetime) -> Emit:
    """The job's outcome where the document is what is wrong.

    No dead letter: to do it again would change nothing, and whoever sends bad files must not stop the stage for others.
    """
    told = JobError(code=error.code, message=error.message)
    return Emit((JobFinished.failed(event.job, error=told, at=at, rate_limit=event.rate_limit),))


def is_of_document(error: PermanentError) -> bool:
    """True if it says what is wrong with a document."""
    return error.code.startswith(OF_DOCUMENTS)
