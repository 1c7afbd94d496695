"""Stage: completion-requested -> job-finished, and completion-streamed on the way.

A question to documents comes with what was found for it (`retrieved`): see `rag_answer`.

Where it fails and the job has another provider, `run_stage` makes it completion-requested-<the next one>.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from processors.completion.fall_over import FILTERED, TIMEOUT, FallOver
from processors.completion.fit_generation import UNSUPPORTED, fitted, refusal
from processors.completion.watched_execution import WatchedExecution
from processors.errors import PermanentError, RetryableError
from processors.filter.answer_policy import AnswerPolicy, Reason, Sent, WithheldError
from processors.ports import Completion, CompletionProvider, CompletionRequest, DeltaWriter, Execution, Guard, Image
from processors.retrieval.cite_sources import Counts
from processors.retrieval.rag_answer import RagAnswer
from processors.stage import DeadLetter, Emit, StageResult
from schemas.events import CompletionRequested, JobError, JobFinished, Risk
from schemas.request_fields import without_unstorable

WITHHELD = "The provider has withheld its answer to this prompt. Please say it in another way."
FILTERED_ANSWER = "The answer to this prompt was withheld. Please say it in another way."
SIMULATED_S = 60.0  # of an outage that is rehearsed: long enough not to be waited for


async def generate_completion(
    event: CompletionRequested,
    *,
    provider: CompletionProvider,
    deltas: DeltaWriter,
    guard: Guard,
    fall_over: FallOver,
    max_response_chars: int,
    now: datetime,
    images: tuple[Image, ...] = (),
    answers: AnswerPolicy = AnswerPolicy(),  # noqa: B008 it has no state
    link_hosts: Sequence[str] = (),
    adapter_id: str | None = None,
) -> StageResult:
    """Ask the provider for the job's answer.

    Args:
        event: The prompt, sanitized.
        provider: The one that the event names.
        deltas: Where the answer is told as it comes.
        guard: Of the provider.
        fall_over: Which failures are left to the job's next provider, where it has one.
        max_response_chars: A longer answer is cut, with finish reason `length`.
        now: The time of the call.
        images: That belong to the prompt; see `with_image`.
        answers: What is not to be told. Its verdict is our own and final: no other provider is asked for an answer
            that passes, and the provider has not failed.
        link_hosts: Hosts that links in an answer from documents may lead to.
        adapter_id: Of the user's adapter that answers; see `with_adapter`.

    Returns:
        `Emit` with one `JobFinished`: the answer, `unsupported-parameter` where the provider has not all that was
        asked for, or `{status: "fallback", answer, confidence}` where the provider withheld the answer, or we did
        (with `reason`); or `DeadLetter("empty-completion")` when the answer is only white space.

    Raises:
        RetryableError, PermanentError: As the provider and its guard raised them; and where the job has a next
            provider, `timeout` if no word came in time and `filtered` if the answer was withheld.
    """
    if event.provider in (event.request.generation_config.simulate_failure or ()):
        message = f"{event.provider} cannot be reached (simulated)"
        raise RetryableError("provider-unreachable", message, retry_after_s=SIMULATED_S)
    generation, lacking = fitted(event.request.generation_config, provider.capabilities)
    if lacking and event.request.generation_config.strict is not False:
        error = JobError(code=UNSUPPORTED, message=refusal(event.provider, lacking))
        return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))
    request = CompletionRequest(
        job_id=event.job.job_id,
        prompt=event.request.prompt,
        instruction=event.request.instruction,
        generation=generation,
        timeout_s=event.work_s,
        images=images,
        model=event.request.model,
        history=event.request.history or (),
        adapter_id=adapter_id if generation.mode == "lora" else None,
    )
    rag = RagAnswer(event, event.retrieved, link_hosts=link_hosts) if event.retrieved is not None else None
    if rag is not None:
        request = rag.asked(request)
    meta: dict[str, Any] = {"provider": event.provider, "job_id": str(event.job.job_id)}
    if lacking:
        meta["dropped"] = list(lacking)
    if event.decision is not None:
        meta["decision"] = event.decision.model_dump()
    onward = fall_over.of(event)
    is_awaited_briefly = onward is not None and onward.takes(TIMEOUT)
    patience_s = fall_over.patience_s(event, now=now) if is_awaited_briefly else None
    sent = _sent(event) if rag is None else rag.sent()
    telling = deltas.execution(event.job, max_chars=max_response_chars)
    watched = WatchedExecution(telling, answers.watch(sent))
    with watched if rag is None else rag.telling(watched) as execution:
        with guard.calling(execution):
            try:
                completion = _storable(await _answer(provider, request, execution, patience_s=patience_s))
            except WithheldError as filtered:  # what was told of it is void, and the provider is well
                return _withheld(event, filtered.reason, meta, now)
        if completion.finish_reason == "content_filter" and onward is not None and onward.takes(FILTERED):
            raise PermanentError(FILTERED, f"{event.provider} has withheld its answer")
        counts: Counts | None = None
        if rag is not None:
            text, counts = rag.checked(completion.text)
            completion = replace(completion, text=text)
        if not completion.text.strip():
            if completion.finish_reason == "content_filter":
                withheld = {"status": "fallback", "answer": WITHHELD, "confidence": "low", "meta": meta}
                return Emit((JobFinished.completed(event.job, result=withheld, at=now, rate_limit=event.rate_limit),))
            return DeadLetter("empty-completion", "the provider returned no text; try again or change the prompt")
        if (reason := answers.judge(completion.text, sent)) is not None:
            return _withheld(event, reason, meta, now)
        completion = _cut(completion, max_response_chars)
        if rag is None or counts is None:
            result = _body(event, completion) | {"meta": meta}
        else:
            result = rag.body(completion, completion.text, counts, meta)
        told = await execution.end(completion.text)
    finished = JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit, stream=told)
    return Emit((finished,))


def _sent(event: CompletionRequested) -> Sent:
    request = event.request
    turns = tuple(turn.text for turn in request.history or ())
    return Sent(request.instruction, (request.prompt, *turns, request.generation_config.schema_text()))


def _withheld(event: CompletionRequested, reason: Reason, meta: dict[str, Any], now: datetime) -> Emit:
    result = {
        "status": "fallback", "reason": reason, "answer": FILTERED_ANSWER, "confidence": "low", "meta": meta,
    }  # fmt: skip
    job = event.job.with_risk(Risk(score=1.0, action="refuse", reason=reason, rules=(reason,), where="answer"))
    return Emit((JobFinished.completed(job, result=result, at=now, rate_limit=event.rate_limit),))


async def _answer(
    provider: CompletionProvider, request: CompletionRequest, execution: Execution, *, patience_s: float | None
) -> Completion:
    """The provider's; RetryableError `timeout` where its first word did not come within `patience_s`."""
    if patience_s is None:
        return await provider.stream(request, execution.tell)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:

            def look() -> None:
                if not execution.has_begun:  # else it may take all of the time
                    limit.reschedule(loop.time())

            timer = loop.call_later(patience_s, look)
            try:
                return await provider.stream(request, execution.tell)
            finally:
                timer.cancel()
    except TimeoutError:
        raise RetryableError(TIMEOUT, f"{provider.name} has not begun to answer in {patience_s:.1f} s") from None


def _storable(completion: Completion) -> Completion:
    """What a provider says may hold what neither Kafka's JSON nor Postgres does."""
    text, model, finish_reason = map(
        without_unstorable, (completion.text, completion.model, completion.finish_reason)
    )  # fmt: skip
    return replace(completion, text=text, model=model, finish_reason=finish_reason)


def _cut(completion: Completion, most: int) -> Completion:
    if len(completion.text) <= most:
        return completion
    return replace(completion, text=completion.text[:most], finish_reason="length")


def _body(event: CompletionRequested, completion: Completion) -> dict[str, Any]:
    """What `POST /chat/` answers (CONTRACT: REST)."""
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
        "result": {"text": completion.text, "finish_reason": completion.finish_reason},
    }
