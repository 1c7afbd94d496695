"""Events for tests: everything has a value, and a test names only what it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from schemas.events import (
    Chunk,
    ChunksPrepared,
    CompletionRequested,
    DocumentReceived,
    Job,
    JobAccepted,
    JobAdmitted,
    JobCancelRequested,
    JobError,
    JobFinished,
    JobRequested,
    PromptSanitized,
    RateLimit,
    RetrievalRequested,
    UserUpdated,
)
from schemas.requests import ChatRequest, DocumentReference, DocumentRequest, RagRequest, SearchRequest

ACCEPTED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW = ACCEPTED_AT + timedelta(milliseconds=20)


def job(**overrides: Any) -> Job:
    fields: dict[str, Any] = {
        "job_id": overrides.pop("job_id", None) or uuid4(),
        "user_id": "alice",
        "role": "user",
        "kind": "chat",
        "accepted_at": ACCEPTED_AT,
        "expires_at": overrides.get("accepted_at", ACCEPTED_AT) + timedelta(hours=1),
    }
    return Job(**fields | overrides)


def chat_request(prompt: str = "Why is the sky blue?", **overrides: Any) -> ChatRequest:
    return ChatRequest(prompt=prompt, **overrides)


def job_requested(**overrides: Any) -> JobRequested:
    return JobRequested(**{"user_id": "alice", "kind": "chat", "request": chat_request()} | overrides)


def job_accepted(**overrides: Any) -> JobAccepted:
    return JobAccepted(**{"job": job(), "request": chat_request()} | overrides)


def prompt_sanitized(**overrides: Any) -> PromptSanitized:
    return PromptSanitized(**{"job": job(), "request": chat_request()} | overrides)


def job_admitted(**overrides: Any) -> JobAdmitted:
    return JobAdmitted(**{"job": job(), "request": chat_request(), "rate_limit": rate_limit()} | overrides)


def rate_limit(**overrides: Any) -> RateLimit:
    return RateLimit(**{"limit": 5, "remaining": 4, "window_s": 60, "reset_s": 0} | overrides)


def completion_requested(**overrides: Any) -> CompletionRequested:
    fields = {"job": job(), "provider": "openai", "request": chat_request(), "timeout_s": 30.0}
    return CompletionRequested(**fields | overrides)


def question(
    text: str = "How do bees find their way home?", *, named: str | None = None, **overrides: Any
) -> RetrievalRequested:
    """`retrieval-requested` of a question; `named`: the embedding provider that its user has named."""
    fields = {**overrides, "embedding_provider": named}
    return RetrievalRequested(
        job=job(kind="rag"), provider=named or "local", provider_is_named=named is not None, llm_provider="openai",
        request=RagRequest(question=text, **fields), timeout_s=30.0, rate_limit=rate_limit(),
    )  # fmt: skip


def query(text: str = "bees", *, named: str | None = None, **overrides: Any) -> RetrievalRequested:
    """The same of a search."""
    return RetrievalRequested(
        job=job(kind="search"), provider=named or "local", provider_is_named=named is not None,
        request=SearchRequest(query=text, provider=named, **overrides), timeout_s=30.0,
    )  # fmt: skip


def job_finished(*, code: str | None = None, job_id: UUID | None = None, **overrides: Any) -> JobFinished:
    of = overrides.pop("job", None) or job(**({"job_id": job_id} if job_id else {}))
    if code is not None:
        overrides.pop("result", None)
        return JobFinished.failed(of, error=JobError(code=code, message="it failed"), at=NOW, **overrides)
    result = overrides.pop("result", {"model": "m", "result": {"text": "Because.", "finish_reason": "stop"}})
    return JobFinished.completed(of, result=result, at=NOW, **overrides)


def job_cancel_requested(**overrides: Any) -> JobCancelRequested:
    return JobCancelRequested(**{"job_id": uuid4(), "user_id": "alice"} | overrides)


def user_updated(**overrides: Any) -> UserUpdated:
    return UserUpdated(**{"user_id": "alice", "role": "user"} | overrides)


def document_request(**overrides: Any) -> DocumentRequest:
    fields = {"document": DocumentReference(payload_id=uuid4()), "source": "handbook.pdf"}
    return DocumentRequest(**fields | overrides)


def document_received(**overrides: Any) -> DocumentReceived:
    fields = {
        "job": job(kind="document"), "provider": "openai", "request": document_request(), "timeout_s": 900.0,
    }  # fmt: skip
    return DocumentReceived(**fields | overrides)


def chunk(index: int = 0, **overrides: Any) -> Chunk:
    text = overrides.get("text", f"chunk {index}")
    return Chunk(**{"index": index, "text": text, "start": 0, "end": len(text), "tokens": 3, "page": 1} | overrides)


def chunks_prepared(**overrides: Any) -> ChunksPrepared:
    fields = {
        "job": job(kind="document"), "provider": "openai", "document_id": uuid4(), "version_id": uuid4(),
        "source": "handbook.pdf", "batch": 0, "chunks": (chunk(),), "timeout_s": 900.0,
    }  # fmt: skip
    return ChunksPrepared(**fields | overrides)
