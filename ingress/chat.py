"""Asking: `POST /chat/` waits for the answer; `/chat/async` and `/inference/` give a job to look at."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from ingress.http.bodies import LARGEST_BODY_BYTES, Sent
from ingress.http.described import described_body
from ingress.http.leaving import left
from ingress.http.problems import Problem, rate_limit_headers
from ingress.outcome import Outcome
from ingress.services import CostingUser, Found, Services
from ingress.streaming import STREAM, EventStream, canceller
from ingress.submitting.asking import ask_and_listen
from ingress.submitting.idempotency import REPLAYED, Key, KeyHeader
from processors.documents.document_outcome import OF_DOCUMENTS
from processors.limits.quarantine import QUARANTINED
from schemas.events import RateLimit, UserUpdated
from schemas.generation import GenerationConfig, Temperature
from schemas.request_fields import CallbackUrl, Prompt, ProviderName, RequestBody
from schemas.requests import ChatRequest

router = APIRouter()

TRY_LATER = {
    "provider-unreachable", "breaker-open", "provider-http-429", "postgres-unavailable", "vectors-unavailable",
    "parser-starved",
}  # fmt: skip
STATUS_BY_CODE = {
    "timeout": 504, "expired": 504, "rate-limited": 429, "no-such-provider": 400,
    "unsupported-parameter": 400, "images-unsupported": 400, "no-such-payload": 400, "embedding-mismatch": 400,
    "no-such-speaker": 400, "no-such-language": 400, "speech-too-long": 400, "nothing-to-say": 400,
    "not-allowed": 403, "too-many-payloads": 429,
    "quarantined": 403, "unexpected-error": 500,
    "crashed-worker": 500, "unknown-user": 401, "user-disabled": 401, "invalid-event": 422, "cancelled": 409,
    "document-too-large": 413, "no-such-adapter": 400, "training-unavailable": 400, "adapter-missing": 409,
    "too-few-examples": 409, "adapter-exists": 409, "too-many-adapters": 409,
}  # fmt: skip
REFUSED = (400, 403, 429)  # nothing was done: an accepted job's caller is told at once, where it is known by then
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; or `{status: refused, reason, answer, confidence}` where the prompt was refused",
        "content": {"application/json": {"example": {
            "model": "gpt-4o-mini", "prompt": "Why is the sky blue?", "generation_config": {"temperature": 0.2},
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
            "result": {"text": "Because of Rayleigh scattering.", "finish_reason": "stop"},
            "meta": {"provider": "openai", "attempts": [{"provider": "openai", "ms": 412}]},
        }}, **STREAM[200]["content"]},
    },
    400: {"description": "No such provider, the ones present are listed; or it cannot do what is asked; or no image"},
    413: {"description": "The body, or its image, is too large"},
    429: {"description": "Rate limit; see RateLimit and Retry-After"},
    502: {"description": "The provider refused or sent garbage"},
    503: {"description": "Nothing was accepted, or the provider cannot be reached; see Retry-After"},
    504: {"description": "No answer in time, or not known whether the job was accepted; see Location"},
}  # fmt: skip
JOBS: dict[int | str, dict[str, Any]] = {
    202: {"description": "The job; poll Location", "content": {"application/json": {"example": {"job_id": "..."}}}},
    200: {"description": "The prompt was refused at once"},
    400: ANSWERS[400],
    413: ANSWERS[413],
    429: ANSWERS[429],
}


# Bodies are their job's requests as they are: of an event's field, what it is declared to hold is what is written.
class ChatBody(ChatRequest):
    """Body of `POST /chat/`: the same, with how the answer comes."""

    stream: Annotated[bool, Field(strict=True, description="Server-sent events, as GET /jobs/{job_id}/stream")] = False
    cancel_on_disconnect: Annotated[
        bool, Field(strict=True, description="Of a stream: to leave before its end is to cancel the job")
    ] = False


class AsyncChatRequest(ChatRequest):
    """The same, with where to send the outcome."""

    callback_url: CallbackUrl | None = None


class InferenceBody(RequestBody):
    """Body of `POST /inference/`; `model` is a provider's name."""

    prompt: Prompt
    model: ProviderName | None = None
    temperature: Temperature = 0.7
    callback_url: CallbackUrl | None = None


@router.post(
    "/chat/", tags=["chat"], responses=ANSWERS, openapi_extra=described_body(ChatBody),
    max_body_size=LARGEST_BODY_BYTES,
)  # fmt: skip
async def chat(user: CostingUser, found: Found, request: Request, key: KeyHeader = None) -> Response:
    """Ask and wait for the answer; to close the connection is to cancel the job (not with an Idempotency-Key).

    With `stream` the answer comes as it is made, by server-sent events, and to close the connection cancels nothing.
    An `image` is base64, a `data:` URL, the file of a form, or the reference that `POST /payloads` gave.
    """
    with await found.bodies.read(ChatBody, request, user, key) as sent:
        if sent.body.stream:
            return await _streamed(sent, user, found)
        leaving = partial(left, request) if key is None else None  # who has a key may come back for the same job
        job_id, outcome = await found.submissions.answered(
            user, sent.body, keyed=sent.key, left=leaving, upload=sent.upload
        )
    headers = rate_limit_headers(outcome.rate_limit) | (REPLAYED if outcome.replayed else {})
    if outcome.status == "completed":
        return json_reply(200, outcome.result, headers)
    raise failed_call(job_id, outcome)


@router.post(
    "/chat/async", tags=["chat"], status_code=202, responses=JOBS, openapi_extra=described_body(AsyncChatRequest),
    max_body_size=LARGEST_BODY_BYTES,
)  # fmt: skip
async def chat_async(user: CostingUser, found: Found, request: Request, key: KeyHeader = None) -> Response:
    """Ask and get a job; the outcome by polling, or at `callback_url` as a signed webhook; `image` as for `/chat/`."""
    with await found.bodies.read(AsyncChatRequest, request, user, key) as sent:
        return as_job(
            *await found.submissions.accepted(
                user, sent.body, callback_url=sent.body.callback_url, keyed=sent.key, upload=sent.upload
            )
        )


@router.post("/inference/", tags=["chat"], status_code=202, responses=JOBS)
async def inference(body: InferenceBody, user: CostingUser, found: Found, key: Key) -> Response:
    """The same with fewer words."""
    request = ChatRequest(
        prompt=body.prompt, provider=body.model, generation_config=GenerationConfig(temperature=body.temperature)
    )
    return as_job(*await found.submissions.accepted(user, request, callback_url=body.callback_url, keyed=key))


async def _streamed(sent: Sent[ChatBody], user: UserUpdated, found: Services) -> Response:
    job_id, listening, headers = await ask_and_listen(sent, sent.body, user, found, refuse=raise_if_refused)
    on_left = canceller(found, user, job_id) if sent.body.cancel_on_disconnect else None
    return EventStream(listening, job_id, headers=headers, on_left=on_left)


def as_job(job_id: UUID, outcome: Outcome | None, standing: RateLimit | None, replayed: bool) -> Response:
    """202 with the job; 200 where its prompt was refused at once. Raises Problem where it ended as 400, 403 or 429."""
    headers = {"Location": f"/jobs/{job_id}", **rate_limit_headers(standing), **(REPLAYED if replayed else {})}
    raise_if_refused(job_id, outcome)
    if outcome is not None and outcome.result is not None and outcome.result.get("status") == "refused":
        return json_reply(200, {**outcome.result, "job_id": str(job_id)}, headers)
    return json_reply(202, {"job_id": str(job_id)}, headers)


def raise_if_refused(job_id: UUID, outcome: Outcome | None) -> None:
    """Where nothing was done, the caller is told at once."""
    if outcome is not None and outcome.error is not None and STATUS_BY_CODE.get(outcome.error["code"]) in REFUSED:
        raise failed_call(job_id, outcome)


def status_of(code: str) -> int:
    """Of a waiting call whose job has ended with this code."""
    if code in TRY_LATER:
        return 503
    return STATUS_BY_CODE.get(code) or (422 if code.startswith(OF_DOCUMENTS) else 502)


def failed_call(job_id: UUID, outcome: Outcome) -> Problem:
    """How a waiting call says that its job has no answer."""
    error = outcome.error or {"code": "unexpected-error", "message": "the job ended without a reason"}
    code, wait = error["code"], error.get("retry_after_s")
    status = status_of(code)
    headers = {"Location": f"/jobs/{job_id}", **rate_limit_headers(outcome.rate_limit)}
    if outcome.replayed:
        headers |= REPLAYED
    extra: dict[str, Any] = {"job_id": str(job_id)}
    if status in (429, 503) or code == QUARANTINED:
        headers["Retry-After"] = str(max(1, round(wait or 5)))
    if wait is not None:
        extra["retry_after_s"] = wait
    return Problem(status, code, error["message"], headers=headers, **extra)


def json_reply(status: int, body: Any, headers: dict[str, str]) -> Response:
    """Of what is no model of ours."""
    return Response(orjson.dumps(body), status, headers, "application/json")
