"""Stage: job-requested -> prompt-sanitized, or job-finished where the prompt is refused."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from processors.normalize_text import clean
from processors.prompt_policy import PromptPolicy
from processors.stage import DeadLetter, Emit, StageResult
from schemas.events import JobAccepted, JobFinished, PromptSanitized, UserUpdated
from schemas.requests import EmbeddingRequest, Turn

ANSWER = "I cannot help with this request as it is worded. Please say it in another way."


def sanitize_prompt(
    event: JobAccepted, *, users: Mapping[str, UserUpdated], policy: PromptPolicy, now: datetime
) -> StageResult:
    """Pass on what is harmless, in normal form; refuse the rest politely.

    Texts of which vectors are made are passed on as they are: no model follows what stands in them.

    Args:
        event: The request, with its job.
        users: All that there are.
        policy: The rules.
        now: The time of the refusal.

    Returns:
        `Emit` with `PromptSanitized`, or with a `JobFinished` whose result is
        `{status: "refused", reason, answer, confidence}`; `DeadLetter` for a user who is unknown or disabled.
    """
    user = users.get(event.job.user_id)
    if user is None:
        return DeadLetter("unknown-user", "there is no such user: an admin registers users with POST /auth/register")
    if user.disabled:
        return DeadLetter("user-disabled", "this user is disabled")
    request = event.request
    if isinstance(request, EmbeddingRequest):
        return Emit((PromptSanitized(job=event.job, request=request),))
    prompt = clean(request.prompt)
    instruction = clean(request.instruction) if request.instruction is not None else None
    history = _clean_turns(request.history) if request.history is not None else None
    if not prompt:
        return _refused(event, "empty-prompt", 1.0, now, "The prompt holds nothing that can be read.")
    # A model reads a conversation as one text: what is spread over its turns is judged as one, too.
    said = "\n".join([*(turn.text for turn in history or ()), prompt])
    if len(said) > policy.max_prompt_chars:
        answer = f"The prompt is longer than {policy.max_prompt_chars} characters. Please shorten it."
        return _refused(event, "prompt-too-long", 1.0, now, answer)
    schema = request.generation_config.schema_text()  # a model reads what stands in it
    finding = next(filter(None, (policy.judge(text) for text in (said, instruction, schema) if text)), None)
    if finding is not None:
        return _refused(event, finding.reason, finding.confidence, now, ANSWER)
    if prompt != request.prompt or instruction != request.instruction or history != request.history:
        request = request.model_copy(update={"prompt": prompt, "instruction": instruction, "history": history})
    return Emit((PromptSanitized(job=event.job, request=request),))


def _clean_turns(history: tuple[Turn, ...]) -> tuple[Turn, ...] | None:
    """Without those in which nothing can be read."""
    cleaned = [(turn, clean(turn.text)) for turn in history]
    return (
        tuple(turn if text == turn.text else Turn(role=turn.role, text=text) for turn, text in cleaned if text) or None
    )


def _refused(event: JobAccepted, reason: str, confidence: float, now: datetime, answer: str) -> Emit:
    result: dict[str, Any] = {"status": "refused", "reason": reason, "answer": answer, "confidence": confidence}
    return Emit((JobFinished.completed(event.job, result=result, at=now),))
