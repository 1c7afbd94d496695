"""Stage: tool-call-requested -> agent-step-requested, or job-finished.

What a tool says is stored before it is told on, so that the same event again runs no tool again. A run that has read
text from documents or from outside reaches nobody before its user has said so: the call waits, and comes again. What is
done is what is stored, which is what its user has seen and approved: an event that says otherwise changes nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from processors.agents.history import redeemed, with_step
from processors.agents.ports import Observed, PlannedStep, StepStore, StoredStep
from processors.agents.progress import progress
from processors.errors import PermanentError, RetryableError
from processors.filter.answer_policy import AnswerPolicy, Sent
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import PromptPolicy
from processors.generate_completion import FILTERED_ANSWER
from processors.stage import Emit, Later, StageResult
from processors.tools.finish import FINISH
from processors.tools.registry import Tools
from processors.tools.tool import MAX_OBSERVATION_CHARS, ToolContext, ToolResult
from schemas.events import AgentState, AgentStep, AgentStepRequested, JobError, JobFinished, Risk, ToolCallRequested

logger = logging.getLogger(__name__)

NAME = "run_tool"
TOOL_TIMEOUT_S = 5.0
REQUIRES_ACTION = "requires-action"
# Approval makes the call due at once; the rest is for one that was given just before the call began to wait.
FIRST_WAIT_S, MAX_WAIT_S = 2.0, 300.0
CALL_IN_HAND = "call-in-hand"
CLAIM_MARGIN_S = 2.0  # beyond the tool's own time, to store what it said
REJECTED = "The user has not approved this call. Do without it."


async def run_tool(
    event: ToolCallRequested,
    *,
    tools: Tools,
    steps: StepStore,
    policy: PromptPolicy,
    answers: AnswerPolicy,
    max_response_chars: int,
    now: datetime,
    tool_timeout_s: float = TOOL_TIMEOUT_S,
    keep: Callable[[ToolCallRequested, AgentStep], Awaitable[None]] | None = None,
) -> StageResult:
    """Do what the model wanted, and go on with what came of it.

    Args:
        event: The call.
        tools: What there is.
        steps: Where each observation is written once.
        policy: Judges what is observed: what holds instructions is withheld from the model.
        answers: Judges the agent's last word.
        max_response_chars: A longer one is cut.
        now: The time of the call.
        tool_timeout_s: What one tool may take.
        keep: Awaited with the last step of a run, before its end is told; may be called twice with the same.

    Returns:
        `Emit` with `AgentStepRequested` and `JobProgressed`; or with a `JobFinished`: the answer, or `max-steps`;
        `Later` while its user has not approved the call, or while it is made for another event of the same step.

    Raises:
        RetryableError, PermanentError: As the store raised them. What a tool raises is observed.
    """
    job = event.job
    stored = await steps.get(job, event.step)
    if stored is None:  # somebody else's event
        planned = PlannedStep(
            event.thought, event.action, event.action_input, is_tainted=event.state.is_tainted
        )  # fmt: skip
        stored = await steps.plan(job, event.request.agent_id, event.step, planned, goal=event.request.goal)
    event = _as_stored(event, stored)
    observed = stored.observed
    state = await redeemed(event.state, job, steps)
    if observed is None:
        found = await _observed(event, stored, state, tools=tools, steps=steps, policy=policy, timeout_s=tool_timeout_s)
        if isinstance(found, Later):
            return found
        found = replace(found, is_untrusted=found.is_untrusted or event.state.is_tainted)
        observed = (await steps.observe(job, event.step, found)).observed or found
    step = AgentStep(
        step=event.step, thought=event.thought, action=event.action, action_input=event.action_input,
        observation=observed.text, risk=observed.risk, is_untrusted=observed.is_untrusted,
    )  # fmt: skip
    has_answer = event.action == FINISH and not isinstance(tools.called(FINISH, event.action_input), str)
    if keep is not None and (has_answer or event.step >= event.request.max_steps):
        await keep(event, step)
    told = progress(event, NAME, at=now, observation=observed.text)
    if has_answer:
        return Emit((_answered(event, answers, max_response_chars, now), told))
    if event.step >= event.request.max_steps:
        message = (
            f"the agent has not reached its goal in {event.request.max_steps} steps: allow more with max_steps (at "
            "most 20), or ask for less; GET /agents/{job_id} shows what it did"
        )
        error = JobError(code="max-steps", message=message)
        return Emit((JobFinished.failed(job, error=error, at=now, rate_limit=event.rate_limit), told))
    following = AgentStepRequested(
        job=job, provider=event.provider, request=event.request, step=event.step + 1,
        state=with_step(state, step), timeout_s=event.timeout_s, rate_limit=event.rate_limit,
    )  # fmt: skip
    return Emit((following, told))


def _as_stored(event: ToolCallRequested, stored: StoredStep) -> ToolCallRequested:
    """The same call with what is stored of it; it has read untrusted text if either says so."""
    planned, changed = stored.planned, dict[str, Any]()
    if (event.action, event.action_input, event.thought) != (planned.action, planned.action_input, planned.thought):
        logger.warning("the event of step %d of job %s is not what is stored of it", event.step, event.job.job_id)
        changed = {"action": planned.action, "action_input": planned.action_input, "thought": planned.thought}
    if planned.is_tainted and stored.observed is None and not event.state.is_tainted:
        changed["state"] = event.state.model_copy(update={"is_tainted": True})
    return event.model_copy(update=changed) if changed else event


async def _observed(
    event: ToolCallRequested, stored: StoredStep, state: AgentState, *, tools: Tools, steps: StepStore,
    policy: PromptPolicy, timeout_s: float,
) -> Observed | Later:  # fmt: skip
    called = tools.called(event.action, event.action_input)
    if isinstance(called, str):
        return Observed(called)
    tool, arguments = called
    if tool.is_outward and event.state.is_tainted and stored.approval != "approved":
        said = stored.approval or await steps.ask(event.job, event.step)
        if said == "rejected":
            return Observed(REJECTED)
        if said != "approved":
            wait_s = min(FIRST_WAIT_S * 2 ** min(event.retry, 20), MAX_WAIT_S)
            return Later(REQUIRES_ACTION, "the run's user is to approve the call", wait_s)
    clock = asyncio.get_running_loop().time
    ends_at = clock() + timeout_s  # from before the claim: so the call has ended when the claim does
    if tool.is_outward:
        # The event that was in hand at a kill and the one that an approval brings may both be here. Whoever dies with
        # the claim leaves it for as long as it lasts; then the call is made again, with the same key.
        claimed_s = timeout_s + CLAIM_MARGIN_S
        if not await steps.claim(event.job, event.step, for_s=claimed_s):
            return Later(CALL_IN_HAND, "this call is being made, or was just made, for the same step", claimed_s)
        if clock() >= ends_at:  # this process stood still meanwhile: the claim may be somebody else's by now
            return Later(CALL_IN_HAND, "its claim ran out before the call was begun", claimed_s)
    context = ToolContext(event.job, event.step, event.request.goal, state)
    try:
        async with asyncio.timeout_at(ends_at):
            result = await tool.run(arguments, context)
    except TimeoutError:
        return Observed(f"{tool.name} did not answer within {timeout_s:g} s.")
    except (RetryableError, PermanentError) as error:
        return Observed(f"{tool.name} failed ({error.code}): {error.message}")
    return _judged(result, policy)


def _judged(result: ToolResult, policy: PromptPolicy) -> Observed:
    """What the model gets to read of it."""
    if result.answer is not None:  # the model's own word, which it is not told again
        return Observed(result.answer)
    left, risk, told = MAX_OBSERVATION_CHARS, 0.0, []
    for part in result.parts:
        text = clean(part[: MAX_OBSERVATION_CHARS * 2])
        if len(text) > left:
            text = f"{text[:left]} … (cut)"
        verdict = policy.verdict(text)
        risk = max(risk, verdict.risk)
        if verdict.action == "refuse":
            text = f"[withheld: this text holds instructions for a model ({verdict.reason})]"
        told.append(text)
        left -= len(text)
        if left <= 0:
            break
    return Observed("\n".join(told), risk, result.is_untrusted)


def _answered(event: ToolCallRequested, answers: AnswerPolicy, max_chars: int, now: datetime) -> JobFinished:
    job, state = event.job, event.state
    text = str(event.action_input["answer"])
    spent = state.spent
    meta: dict[str, Any] = {
        "provider": event.provider, "job_id": str(job.job_id), "steps": event.step, "is_tainted": state.is_tainted,
        "calls": spent.calls,
    }  # fmt: skip
    if spent.cost:
        meta["cost"] = spent.cost
    if state.decision is not None:
        meta["decision"] = state.decision.model_dump()
    if (reason := answers.judge(text, Sent(None, (event.request.goal,)))) is not None:
        result: dict[str, Any] = {
            "status": "fallback", "reason": reason, "answer": FILTERED_ANSWER, "confidence": "low", "meta": meta,
        }  # fmt: skip
        job = job.with_risk(Risk(score=1.0, action="refuse", reason=reason, rules=(reason,), where="answer"))
    else:
        is_cut = len(text) > max_chars
        usage = {
            "prompt_tokens": spent.prompt_tokens, "completion_tokens": spent.completion_tokens,
            "total_tokens": spent.tokens,
        }  # fmt: skip
        result = {
            "answer": text[:max_chars], "finish_reason": "length" if is_cut else "stop", "goal": event.request.goal,
            "usage": usage, "meta": meta,
        }  # fmt: skip
    return JobFinished.completed(job, result=result, at=now, rate_limit=event.rate_limit)
