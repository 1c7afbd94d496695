"""Stage: job-requested -> prompt-sanitized, or job-finished where the prompt is refused.

A prompt that met a rule is an incident, too: security-incident-detected beside the refusal.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from processors.filter.mask_secrets import excerpt
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import HARMLESS, PromptPolicy, Verdict
from processors.limits.quarantine import quarantined
from processors.stage import DeadLetter, Emit, StageResult
from schemas.caller import as_address
from schemas.events import (
    Job,
    JobAccepted,
    JobFinished,
    PromptSanitized,
    Risk,
    SecurityIncidentDetected,
    UserUpdated,
)
from schemas.requests import AgentRequest, ChatRequest, ExampleRequest, RagRequest, SmartRequest, Turn

# Requests that a model follows, and the field in which it is told what to do.
Prompting = ChatRequest | RagRequest | AgentRequest | SmartRequest
PROMPTING = (ChatRequest, RagRequest, AgentRequest, SmartRequest)
PROMPT_FIELDS: dict[type[Prompting], str] = {
    ChatRequest: "prompt", RagRequest: "question", AgentRequest: "goal", SmartRequest: "query",
}  # fmt: skip
ANSWER = "I cannot help with this request as it is worded. Please say it in another way."


NOT_CLASSIFIED = "not-classified"

Scores = Callable[[UUID], float | None]  # None: the classifier could not be asked


def no_classifier(_: UUID) -> float:
    """Where there is none, it finds nothing."""
    return 0.0


def sanitize_prompt(
    event: JobAccepted,
    *,
    users: Mapping[str, UserUpdated],
    policy: PromptPolicy,
    now: datetime,
    score_of: Scores = no_classifier,
    needs_score: bool = False,
) -> StageResult:
    """Pass on what is harmless, in normal form; refuse the rest politely. What is told of is in the job's `risk`.

    Texts of which vectors are made are passed on as they are, queries and documents too: no model follows what stands
    in them there. A question to documents is a prompt; what is found for it is judged where it is found. An example to
    learn from is judged, all of it.

    Args:
        event: The request, with its job.
        users: All that there are.
        policy: The rules.
        now: The time of the refusal.
        score_of: What a classifier has said of the job's texts, by job.
        needs_score: Where it could not be asked, the prompt is refused.

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
    if isinstance(request, ExampleRequest):
        return _example(event, request, policy, now)
    if not isinstance(request, PROMPTING):
        return Emit((PromptSanitized(job=event.job, request=request),))
    asked = prompt_of(request)
    prompt, instruction, history = clean(asked), None, None
    if isinstance(request, ChatRequest):
        instruction = clean(request.instruction) if request.instruction is not None else None
        history = _clean_turns(request.history) if request.history is not None else None
    if not prompt:
        return _refused(event.job, "empty-prompt", 1.0, now, "The prompt holds nothing that can be read.")
    # A model reads a conversation as one text: what is spread over its turns is judged as one, too.
    said = "\n".join([*(turn.text for turn in history or ()), prompt])
    if len(said) > policy.max_prompt_chars:
        answer = f"The prompt is longer than {policy.max_prompt_chars} characters. Please shorten it."
        return _refused(event.job, "prompt-too-long", 1.0, now, answer)
    texts = (("prompt", said), ("instruction", instruction), ("schema", request.generation_config.schema_text()))
    job, verdict = _judged(event.job, texts, policy)
    if verdict.action != "refuse":
        score = score_of(job.job_id)
        if score is None and needs_score:
            return _refused(job, NOT_CLASSIFIED, 1.0, now, "The prompt cannot be checked now. Please try again later.")
        if score:
            verdict = policy.with_score(verdict, score)
            job = _with_verdict(job, verdict, "prompt")
    if verdict.action == "refuse":
        refused = _refused(job, verdict.reason or "", verdict.risk, now, ANSWER)
        shown = {**dict(texts), "prompt": prompt}[job.risk.where if job.risk else "prompt"]
        return Emit((*refused.events, _incident(event, verdict, shown or "")))
    if not isinstance(request, ChatRequest):
        if prompt != asked:
            request = request.model_copy(update={PROMPT_FIELDS[type(request)]: prompt})
    elif prompt != request.prompt or instruction != request.instruction or history != request.history:
        request = request.model_copy(update={"prompt": prompt, "instruction": instruction, "history": history})
    return Emit((PromptSanitized(job=job, request=request),))


def _example(event: JobAccepted, example: ExampleRequest, policy: PromptPolicy, now: datetime) -> StageResult:
    """What a model learns from it will follow one day: all of it is judged like a prompt, and kept in normal form."""
    instruction, given, output = clean(example.instruction), clean(example.input), clean(example.output)
    if not instruction or not output:
        answer = "The instruction or the output holds nothing that can be read."
        return _refused(event.job, "empty-prompt", 1.0, now, answer)
    texts = (("instruction", instruction), ("prompt", given), ("answer", output))
    job, verdict = _judged(event.job, texts, policy)
    if verdict.action == "refuse":
        refused = _refused(job, verdict.reason or "", verdict.risk, now, ANSWER)
        return Emit((*refused.events, _incident(event, verdict, dict(texts)[job.risk.where if job.risk else "prompt"])))
    request = example.model_copy(update={"instruction": instruction, "input": given, "output": output})
    return Emit((PromptSanitized(job=job, request=request),))


def prompt_of(request: Prompting) -> str:
    """What of a request a model is asked."""
    asked: str = getattr(request, PROMPT_FIELDS[type(request)])
    return asked


def texts_of(request: Prompting) -> str:
    """All that a model is told by it, as one text."""
    if not isinstance(request, ChatRequest):
        return "\n".join(filter(None, (prompt_of(request), request.generation_config.schema_text())))
    turns = [turn.text for turn in request.history or ()]
    return "\n".join(
        filter(None, (*turns, request.prompt, request.instruction, request.generation_config.schema_text()))
    )


def _judged(job: Job, texts: Sequence[tuple[str, str | None]], policy: PromptPolicy) -> tuple[Job, Verdict]:
    """The first refusal, else the weightiest of the verdicts; and the job with it."""
    weightiest = HARMLESS
    for where, text in texts:
        verdict = policy.judge(text) if text else None
        if verdict is None:
            continue
        job = _with_verdict(job, verdict, where)
        if verdict.action == "refuse":
            return job, verdict
        weightiest = max(weightiest, verdict, key=lambda one: one.risk)
    return job, weightiest


def _with_verdict(job: Job, verdict: Verdict, where: Any) -> Job:
    if verdict.action == "pass" or verdict.reason is None:
        return job
    found = Risk(
        score=verdict.risk, action=verdict.action, reason=verdict.reason, rules=verdict.rules, where=where
    )  # fmt: skip
    return job.with_risk(found)


def _clean_turns(history: tuple[Turn, ...]) -> tuple[Turn, ...] | None:
    """Without those in which nothing can be read."""
    cleaned = [(turn, clean(turn.text)) for turn in history]
    return (
        tuple(turn if text == turn.text else Turn(role=turn.role, text=text) for turn, text in cleaned if text) or None
    )


def _incident(event: JobAccepted, verdict: Verdict, text: str) -> SecurityIncidentDetected:
    job = event.job
    return SecurityIncidentDetected(
        at=job.accepted_at, user_id=job.user_id, reason=verdict.reason or "", stage="sanitize_prompt",
        job_id=job.job_id, run=job.run, source=event.source, address=as_address(event.address),
        score=verdict.risk,
        excerpt=excerpt(text),
    )  # fmt: skip


def _refused(job: Job, reason: str, confidence: float, now: datetime, answer: str) -> Emit:
    result: dict[str, Any] = {"status": "refused", "reason": reason, "answer": answer, "confidence": confidence}
    return Emit((JobFinished.completed(job, result=result, at=now),))
