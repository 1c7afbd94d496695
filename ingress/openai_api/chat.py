"""`POST /v1/chat/completions`: OpenAI's API, through the same topics as every other job.

Source: OpenAI's API reference, "Create chat completion"; what its own Python client does is in the tests.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response

from ingress.access.credentials import REVOKED, WHY_REVOKED
from ingress.chat import ANSWERS, failed_call
from ingress.http.bodies import LARGEST_BODY_BYTES, Sent
from ingress.http.described import described_body
from ingress.http.leaving import left
from ingress.http.problems import Problem, rate_limit_headers
from ingress.openai_api.bodies import ChatCompletionBody
from ingress.openai_api.chunks import AnotherAnswerError, Chunks, error_event, whole
from ingress.openai_api.images import IMAGE_PART
from ingress.outcome import Outcome
from ingress.services import CostingUser, Found, Services
from ingress.streaming import EventStream, Listening, canceller
from ingress.submitting.asking import ask_and_listen
from ingress.submitting.idempotency import REPLAYED, KeyHeader
from schemas.events import UserUpdated
from schemas.requests import ChatRequest

router = APIRouter(tags=["openai"])

EXAMPLE = {
    "id": "chatcmpl-0192f0c1-2b3c-8d4e-9f50-6172839405a6", "object": "chat.completion", "created": 1730616044,
    "model": "gpt-4o-mini",
    "choices": [{
        "index": 0, "finish_reason": "stop", "logprobs": None,
        "message": {"role": "assistant", "content": "Because of Rayleigh scattering.", "refusal": None},
    }],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}  # fmt: skip
RESPONSES: dict[int | str, dict[str, Any]] = {
    **ANSWERS,
    200: {
        "description": "The answer, or its chunks; a refused prompt is an answer with `status: refused` beside choices",
        "content": {"application/json": {"example": EXAMPLE}, "text/event-stream": {"example": "data: [DONE]\n"}},
    },
    400: {"description": "What does not fit or is not offered; `error.param` says which"},
    404: {"description": "No such model; GET /v1/models lists those that there are"},
}


@router.post(
    "/v1/chat/completions", responses=RESPONSES, openapi_extra=described_body(ChatCompletionBody),
    max_body_size=LARGEST_BODY_BYTES,
)  # fmt: skip
async def chat_completions(user: CostingUser, found: Found, request: Request, key: KeyHeader = None) -> Response:
    """OpenAI's API; the last user turn may have an image, as a `data:` URL.

    To close the connection of a call that waits is to cancel the job (not with an Idempotency-Key); of a stream it
    cancels nothing unless `cancel_on_disconnect` is true.
    """
    with await found.bodies.read(ChatCompletionBody, request, user, key, image=IMAGE_PART) as sent:
        body = sent.body
        model = found.models().find(body.model)
        asked = body.request(model)
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            chunks = partial(Chunks, model=model.name, with_usage=with_usage)
            return await _streamed(sent, asked, chunks, user, found)
        leaving = partial(left, request) if key is None else None
        job_id, outcome = await found.submissions.answered(
            user, asked, keyed=sent.key, left=leaving, metadata=body.job_metadata(), upload=sent.upload
        )
    content = orjson.dumps(whole(job_id, model.name, _result(job_id, outcome)))
    headers = {"Location": f"/jobs/{job_id}", **rate_limit_headers(outcome.rate_limit)}
    return Response(content, 200, headers | (REPLAYED if outcome.replayed else {}), "application/json")


async def _streamed(
    sent: Sent[ChatCompletionBody], asked: ChatRequest, chunks: Callable[[UUID], Chunks], user: UserUpdated,
    found: Services,
) -> Response:  # fmt: skip
    job_id, listening, headers = await ask_and_listen(
        sent, asked, user, found, refuse=_result,
        metadata=sent.body.job_metadata(),
    )  # fmt: skip
    on_left = canceller(found, user, job_id) if sent.body.cancel_on_disconnect else None
    return ChatStream(listening, job_id, chunks(job_id), headers=headers, on_left=on_left)


class ChatStream(EventStream):
    """A listener's answer as chunks.

    It begins with the first word: what fails before is an error like that of a call that waits. Where nothing comes
    for 15 s, it begins with a comment.
    """

    def __init__(
        self, listening: Listening, job_id: UUID, chunks: Chunks, *, headers: Mapping[str, str] | None = None,
        on_left: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(listening, job_id, headers=headers, on_left=on_left)
        self._job_id, self._chunks = job_id, chunks

    async def told(self) -> AsyncGenerator[bytes, None]:
        """See `EventStream.told`; raises Problem where it has not begun."""
        has_begun = False
        try:
            async with contextlib.aclosing(self._told()) as told:
                async for chunk in told:
                    has_begun = True
                    yield chunk
        except Problem as problem:
            if not has_begun:
                raise
            yield error_event(problem)

    async def _told(self) -> AsyncGenerator[bytes, None]:
        chunks = self._chunks
        async with contextlib.aclosing(self._listening.listener.news()) as every:
            async for news in every:
                if news.is_revoked:
                    raise Problem(401, REVOKED, WHY_REVOKED, headers={"WWW-Authenticate": "Bearer"})
                if news.sent_away is not None:
                    raise self._cut("stream-cut", f"the stream ends here, the job does not: {news.sent_away}")
                try:
                    if news.is_void:
                        chunks.void()
                    if told := chunks.said(news.pieces):
                        yield told
                    if news.outcome is not None:
                        yield chunks.end(_result(self._job_id, news.outcome))
                except AnotherAnswerError:
                    if (withheld := _withheld(self._listening.listener.outcome)) is not None:
                        yield chunks.withheld(withheld)
                        return
                    why = "another worker has taken the answer over and says it in other words: what was told is void"
                    raise self._cut("stream-restarted", why) from None
                if not (news.progress or news.pieces or news.is_void or news.outcome):
                    yield b": it is still on its way\n\n"

    def _cut(self, code: str, why: str) -> Problem:
        detail = f"{why}; GET /jobs/{self._job_id} has the answer"
        return Problem(503, code, detail, headers={"Location": f"/jobs/{self._job_id}"}, job_id=str(self._job_id))


def _withheld(outcome: Outcome | None) -> dict[str, Any] | None:
    """The body that stands in place of an answer that is not told."""
    result = outcome.result if outcome is not None and outcome.status == "completed" else None
    return result if result is not None and result.get("status") == "fallback" else None


def _result(job_id: UUID, outcome: Outcome) -> dict[str, Any]:
    """Raises Problem where it has none."""
    if outcome.status != "completed" or outcome.result is None:
        raise failed_call(job_id, outcome)
    return outcome.result
