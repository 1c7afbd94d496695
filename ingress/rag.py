"""Questions to one's documents: `POST /chat/rag` waits for the answer; `/chat/rag/async` gives a job to look at."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, JsonValue

from ingress.chat import ANSWERS, JOBS, as_job, failed_call, json_reply, raise_if_refused
from ingress.http.bodies import Sent
from ingress.http.leaving import left
from ingress.http.problems import rate_limit_headers
from ingress.services import CostingUser, Found
from ingress.streaming import STREAM, EventStream, canceller
from ingress.submitting.asking import ask_and_listen
from ingress.submitting.idempotency import REPLAYED, Key
from schemas.request_fields import CallbackUrl
from schemas.requests import RagRequest

router = APIRouter(tags=["documents"])

QUESTION: dict[str, JsonValue] = {"question": "How do bees find their way home?", "top_k": 5}
EXAMPLE: dict[str, Any] = {
    "answer": "By the sun [1], and by what they remember of the country [2].",
    "sources": [{
        "index": 1, "text": "Bees steer by the sun.", "score": 0.83, "document": "3f0e0f5c-6b1e-5d0f-9a57-6f8f3a1b2c3d",
        "source": "bees.pdf", "page": 12, "chunk": 31, "section": "Flight > Orientation",
    }],
    "meta": {
        "provider": "openai", "citations": {"valid": 2, "removed": 0},
        "embedding": {"provider": "local", "model": "multilingual-e5-small"}, "finish_reason": "stop",
        "attempts": [{"provider": "openai", "ms": 412}],
    },
    "model": "gpt-4o-mini", "usage": {"prompt_tokens": 803, "completion_tokens": 21, "total_tokens": 824},
}  # fmt: skip
MISMATCH = (
    "No such provider, the ones present are listed; or `embedding-mismatch`: the documents' vectors are another's"
)
RESPONSES: dict[int | str, dict[str, Any]] = {
    **ANSWERS,
    200: {
        "description": "The answer with its sources; that there is nothing to answer from, without any; or "
        "`{status: refused, reason, answer, confidence}` where the question was refused",
        "content": {"application/json": {"example": EXAMPLE}, **STREAM[200]["content"]},
    },
    400: {"description": MISMATCH},
}


class RagBody(RagRequest):
    """Body of `POST /chat/rag`: a question to the user's documents, with how the answer comes."""

    model_config = ConfigDict(json_schema_extra={"examples": [QUESTION]})

    stream: Annotated[bool, Field(strict=True, description="Server-sent events, as GET /jobs/{job_id}/stream")] = False
    cancel_on_disconnect: Annotated[
        bool, Field(strict=True, description="Of a stream: to leave before its end is to cancel the job")
    ] = False


class AsyncRagRequest(RagRequest):
    """The same, with where to send the outcome."""

    model_config = ConfigDict(json_schema_extra={"examples": [QUESTION]})

    callback_url: CallbackUrl | None = None


@router.post("/chat/rag", responses=RESPONSES)
async def rag(body: RagBody, user: CostingUser, found: Found, key: Key, request: Request) -> Response:
    """Ask your documents and wait for the answer, which cites its sources: `[1]` is the one with index 1.

    Where they hold nothing to the point it says so, and no model is asked. To close the connection is to cancel the
    job (not with an Idempotency-Key, and not with `stream`).
    """
    if body.stream:
        sent = Sent(body, None, key)
        job_id, listening, headers = await ask_and_listen(sent, _asked(body), user, found, refuse=raise_if_refused)
        on_left = canceller(found, user, job_id) if body.cancel_on_disconnect else None
        return EventStream(listening, job_id, headers=headers, on_left=on_left)
    leaving = partial(left, request) if key is None else None
    job_id, outcome = await found.submissions.answered(user, _asked(body), keyed=key, left=leaving)
    headers = rate_limit_headers(outcome.rate_limit) | (REPLAYED if outcome.replayed else {})
    if outcome.status == "completed":
        return json_reply(200, outcome.result, headers)
    raise failed_call(job_id, outcome)


@router.post(
    "/chat/rag/async", status_code=202, responses={**JOBS, 400: RESPONSES[400]},
)  # fmt: skip
async def rag_async(body: AsyncRagRequest, user: CostingUser, found: Found, key: Key) -> Response:
    """Ask your documents and get a job; the outcome by polling, or at `callback_url` as a signed webhook."""
    return as_job(
        *await found.submissions.accepted(user, _asked(body), callback_url=body.callback_url, keyed=key)
    )  # fmt: skip


def _asked(body: RagRequest) -> RagRequest:
    """What of a body is the job's request."""
    names = RagRequest.model_fields
    return RagRequest.model_construct(
        body.model_fields_set & names.keys(), **{name: getattr(body, name) for name in names}
    )
