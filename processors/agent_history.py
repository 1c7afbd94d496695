"""What an agent carries from step to step: the newest steps as they were, older ones as a digest, all of it bounded."""

import hashlib
import json
from typing import Any

from processors.agent_ports import PlannedStep
from schemas.events import AgentSpent, AgentState, AgentStep

MAX_WHOLE_STEPS = 6
MAX_STATE_BYTES = 128 * 1024  # with goal and call it stays within what travels in an event
MAX_DIGEST_CHARS, DIGESTED_CHARS, DIGESTED_INPUT_CHARS = 4_000, 240, 120


def with_step(state: AgentState, step: AgentStep) -> AgentState:
    """The state after one more step."""
    return bounded(
        state.model_copy(
            update={"steps": (*state.steps, step), "is_tainted": state.is_tainted or step.is_untrusted}
        )
    )  # fmt: skip


def bounded(state: AgentState, *, max_bytes: int = MAX_STATE_BYTES) -> AgentState:
    """The same, its oldest steps digested: those over six, and those for which there is no room."""
    steps, digest = list(state.steps), state.digest
    while len(steps) > MAX_WHOLE_STEPS or (
        len(steps) > 1 and _size(state.model_copy(update={"steps": tuple(steps)})) > max_bytes
    ):
        digest = _shortened(f"{digest}\n{digest_of(steps.pop(0))}".strip())
    if len(steps) == len(state.steps):
        return state
    return state.model_copy(update={"steps": tuple(steps), "digest": digest})


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


def _size(state: AgentState) -> int:
    return len(state.model_dump_json().encode())


def _shortened(digest: str) -> str:
    """The newest lines of it."""
    lines = digest.splitlines()
    while len(lines) > 1 and sum(map(len, lines)) + len(lines) > MAX_DIGEST_CHARS:
        lines.pop(0)
    return "\n".join(lines)[:MAX_DIGEST_CHARS]
