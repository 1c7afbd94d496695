"""What an agent carries from step to step: the newest steps as they were, older ones as a digest, all of it bounded.

Steps that are too large to ride in an event are only named there, and read again from where they are stored: every step
is, before anything follows from it.
"""

import hashlib
import json
from typing import Any

from processors.agents.ports import PlannedStep, StepStore
from schemas.events import AgentSpent, AgentState, AgentStep, Job

MAX_WHOLE_STEPS = 6
MAX_STATE_BYTES = 128 * 1024  # with goal and call it stays within what travels in an event
CLAIM_BYTES = 4
MAX_DIGEST_CHARS, DIGESTED_CHARS, DIGESTED_INPUT_CHARS = 4_000, 240, 120


def with_step(state: AgentState, step: AgentStep) -> AgentState:
    """The state after one more step; to one of which nothing is only claimed."""
    return bounded(
        state.model_copy(
            update={"steps": (*state.steps, step), "is_tainted": state.is_tainted or step.is_untrusted}
        )
    )  # fmt: skip


def bounded(state: AgentState, *, max_bytes: int = MAX_STATE_BYTES) -> AgentState:
    """The same, its oldest steps digested where they are over six, and of these the oldest claimed for want of room."""
    steps, digest = list(state.steps), state.digest
    while len(steps) > MAX_WHOLE_STEPS:
        digest = _shortened(f"{digest}\n{digest_of(steps.pop(0))}".strip())
    if len(steps) < len(state.steps):
        state = state.model_copy(update={"steps": tuple(steps), "digest": digest})
    if (
        _size(state) + MAX_WHOLE_STEPS * CLAIM_BYTES < max_bytes
    ):  # as nearly always; one by one they cost seven times it
        return state
    claimed = list(state.claimed)
    sizes = [_size(step) for step in steps]
    left = max_bytes - _size(state.model_copy(update={"steps": ()})) - MAX_WHOLE_STEPS * CLAIM_BYTES
    while len(steps) > 1 and sum(sizes) > left:
        sizes.pop(0)
        claimed.append(steps.pop(0).step)
    return state.model_copy(update={"steps": tuple(steps), "claimed": tuple(claimed)})


async def redeemed(state: AgentState, job: Job, store: StepStore) -> AgentState:
    """The same with all of its steps; where some were deleted, with those that there are.

    Raises:
        RetryableError: The store is away.
    """
    if not state.claimed:
        return state
    found = await store.whole(job, state.claimed)
    return state.model_copy(update={"steps": (*found, *state.steps), "claimed": ()})


def digest_of(step: AgentStep) -> str:
    """A step in one line."""
    given = json.dumps(step.action_input, ensure_ascii=False)[:DIGESTED_INPUT_CHARS]
    observed = " ".join(step.observation.split())
    if len(observed) > DIGESTED_CHARS:
        observed = f"{observed[:DIGESTED_CHARS]} …"
    return f"{step.step}. {step.action} {given} -> {observed}"


def spent_with(spent: AgentSpent, planned: PlannedStep, *, cost: float) -> AgentSpent:
    """What a run has cost once a step was planned; `cost`: of that."""
    return AgentSpent(
        calls=spent.calls + planned.calls,
        prompt_tokens=spent.prompt_tokens + planned.prompt_tokens,
        completion_tokens=spent.completion_tokens + planned.completion_tokens,
        cost=round(spent.cost + cost, 9),
    )


def call_key(action: str, action_input: dict[str, Any]) -> str:
    """The same for the same call, however its arguments are ordered."""
    told = json.dumps([action, action_input], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(told.encode(errors="replace")).hexdigest()[:16]


def counted(state: AgentState, action: str, action_input: dict[str, Any]) -> AgentState:
    """The state once a call is wanted: how often in a row it was."""
    key = call_key(action, action_input)
    return state.model_copy(
        update={"last_call": key, "repeats": state.repeats + 1 if key == state.last_call else 1}
    )  # fmt: skip


def _size(of: AgentState | AgentStep) -> int:
    return len(of.model_dump_json().encode()) + 1


def _shortened(digest: str) -> str:
    """The newest lines of it."""
    lines = digest.splitlines()
    while len(lines) > 1 and sum(map(len, lines)) + len(lines) > MAX_DIGEST_CHARS:
        lines.pop(0)
    return "\n".join(lines)[:MAX_DIGEST_CHARS]
