"""Stage: completion-requested -> job-finished, and completion-streamed on the way."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from processors.fit_generation import UNSUPPORTED, fitted, refusal
from processors.ports import Completion, CompletionProvider, CompletionRequest, DeltaWriter
from processors.stage import DeadLetter, Emit, StageResult
from schemas.events import CompletionRequested, JobError, JobFinished
from schemas.requests import without_unstorable

WITHHELD = "The provider has withheld its answer to this prompt. Please say it in another way."


async def generate_completion(
    event: CompletionRequested,
    *,
    provider: CompletionProvider,
    deltas: DeltaWriter,
    max_response_chars: int,
    now: datetime,
) -> StageResult:
    """Ask the provider for the job's answer.

    Args:
        event: The prompt, sanitized.
        provider: The one that the event names.
        deltas: Where the answer is told as it comes.
        max_response_chars: A longer answer is cut, with finish reason `length`.
        now: The time of the call.

    Returns:
        `Emit` with one `JobFinished`: the answer, `unsupported-parameter` where the provider has not all that was
        asked for, or `{status: "fallback", answer, confidence}` where it withheld the answer; or
        `DeadLetter("empty-completion")` when the answer is only white space.

    Raises:
        RetryableError, PermanentError: As the provider raised them.
    """
    generation, lacking = fitted(event.request.generation_config, provider.capabilities)
    if lacking and event.request.generation_config.strict is not False:
        error = JobError(code=UNSUPPORTED, message=refusal(event.provider, lacking))
        return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))
    request = CompletionRequest(
        job_id=event.job.job_id,
        prompt=event.request.prompt,
        instruction=event.request.instruction,
        generation=generation,
        timeout_s=event.timeout_s,
        model=event.request.model,
        history=event.request.history or (),
    )
    meta: dict[str, Any] = {"provider": event.provider, "job_id": str(event.job.job_id)}
    if lacking:
        meta["dropped"] = list(lacking)
    with deltas.execution(event.job, max_chars=max_response_chars) as execution:
        completion = _storable(await provider.stream(request, execution.tell))
        if not completion.text.strip():
            if completion.finish_reason == "content_filter":
                withheld = {"status": "fallback", "answer": WITHHELD, "confidence": "low", "meta": meta}
                return Emit((JobFinished.completed(event.job, result=withheld, at=now, rate_limit=event.rate_limit),))
            return DeadLetter("empty-completion", "the provider returned no text; try again or change the prompt")
        result = _body(event, completion, max_response_chars) | {"meta": meta}
        told = await execution.end(result["result"]["text"])
    finished = JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit, stream=told)
    return Emit((finished,))


def _storable(completion: Completion) -> Completion:
    """What a provider says may hold what neither Kafka's JSON nor Postgres does."""
    text, model, finish_reason = map(
        without_unstorable, (completion.text, completion.model, completion.finish_reason)
    )  # fmt: skip
    return replace(completion, text=text, model=model, finish_reason=finish_reason)


def _body(event: CompletionRequested, completion: Completion, max_response_chars: int) -> dict[str, Any]:
    """What `POST /chat/` answers (CONTRACT: REST)."""
    text, finish_reason = completion.text, completion.finish_reason
    if len(text) > max_response_chars:
        text, finish_reason = text[:max_response_chars], "length"
    usage = completion.usage
    return {
        "model": completion.model,
        "prompt": event.request.prompt,
        "generation_config": event.request.generation_config.model_dump(exclude_none=True),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }
        if usage
        else None,
        "result": {"text": text, "finish_reason": finish_reason},
    }
