"""Stage: job-requested -> prompt-sanitized, or job-finished where the prompt is refused.

A prompt that met a rule is an incident, too: security-incident-detected beside the refusal.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from processors.mask_secrets import excerpt
from processors.normalize_text import clean
from processors.prompt_policy import Finding, PromptPolicy
from processors.quarantine import quarantined
from processors.stage import DeadLetter, Emit, StageResult
from schemas.caller import as_address
from schemas.events import JobAccepted, JobFinished, PromptSanitized, SecurityIncidentDetected, UserUpdated
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
        `{status: "refused", reason, answer, confidence}` (and a `SecurityIncidentDetected` where it met a rule), or
        whose error is `quarantined`; `DeadLetter` for a user who is unknown or disabled.
    """
    user = users.get(event.job.user_id)
    if user is None:
        return DeadLetter("unknown-user", "there is no such user: an admin registers users with POST /auth/register")
    if user.disabled:
        return DeadLetter("user-disabled", "this user is disabled")
    if user.is_quarantined(now):
        return Emit((JobFinished.failed(event.job, error=quarantined(user, now), at=now),))
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
    for text, shown in ((said, prompt), (instruction, instruction), (schema, schema)):
        if text and (finding := policy.judge(text)) is not None:
            refused = _refused(event, finding.reason, finding.confidence, now, ANSWER)
            return Emit((*refused.events, _incident(event, finding, shown or text)))
    if prompt != request.prompt or instruction != request.instruction or history != request.history:
        request = request.model_copy(update={"prompt": prompt, "instruction": instruction, "history": history})
    return Emit((PromptSanitized(job=event.job, request=request),))


def _clean_turns(history: tuple[Turn, ...]) -> tuple[Turn, ...] | None:
    """Without those in which nothing can be read."""
    cleaned = [(turn, clean(turn.text)) for turn in history]
    return (
        tuple(turn if text == turn.text else Turn(role=turn.role, text=text) for turn, text in cleaned if text) or None
    )


def _incident(event: JobAccepted, finding: Finding, text: str) -> SecurityIncidentDetected:
    job = event.job
    return SecurityIncidentDetected(
        at=job.accepted_at, user_id=job.user_id, reason=finding.reason, stage="sanitize_prompt", job_id=job.job_id,
        run=job.run, source=event.source, address=as_address(event.address), score=finding.confidence,
        excerpt=excerpt(text),
    )  # fmt: skip


def _refused(event: JobAccepted, reason: str, confidence: float, now: datetime, answer: str) -> Emit:
    result: dict[str, Any] = {"status": "refused", "reason": reason, "answer": answer, "confidence": confidence}
    return Emit((JobFinished.completed(event.job, result=result, at=now),))
