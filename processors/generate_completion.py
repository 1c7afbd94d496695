"""Stage: completion-requested -> job-finished, and completion-streamed on the way."""

from datetime import datetime
from typing import Any

from processors.ports import Completion, CompletionProvider, CompletionRequest, DeltaWriter
from processors.stage import DeadLetter, Emit, StageResult
from schemas.events import CompletionRequested, JobFinished


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
        `Emit` with one `JobFinished`, or `DeadLetter("empty-completion")` when the answer is only white space.

    Raises:
        RetryableError, PermanentError: As the provider raised them.
    """
    request = CompletionRequest(
        job_id=event.job.job_id,
        prompt=event.request.prompt,
        instruction=event.request.instruction,
        generation=event.request.generation_config,
        timeout_s=event.timeout_s,
    )
    with deltas.execution(event.job, max_chars=max_response_chars) as execution:
        completion = await provider.stream(request, execution.tell)
        if not completion.text.strip():
            return DeadLetter("empty-completion", "the provider returned no text; try again or change the prompt")
        result = _body(event, completion, max_response_chars)
        told = await execution.end(result["result"]["text"])
    finished = JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit, stream=told)
    return Emit((finished,))


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
        "meta": {"provider": event.provider, "job_id": str(event.job.job_id)},
    }
