"""What an agent knows of its user's earlier runs with it."""

from collections.abc import Sequence

from processors.agents.history import digest_of
from processors.agents.ports import Remembered, StepStore
from processors.agents.recall_by_meaning import RecallByMeaning
from processors.tools.finish import FINISH
from schemas.events import AgentStep, AgentStepRequested

RECENT_STEPS, MAX_MEMORY_CHARS, MAX_GOAL_CHARS = 8, 3_000, 200


async def recall(
    event: AgentStepRequested, *, steps: StepStore, by_meaning: RecallByMeaning | None = None
) -> AgentStepRequested:
    """The event with the newest of what the agent has done before, and with what is like its goal.

    A run that is told of text from documents or from outside has read it, as if it had fetched it itself.

    Raises:
        RetryableError: The store is away.
    """
    agent_id = event.request.agent_id
    found = list(await steps.recent(event.job, agent_id, limit=RECENT_STEPS))
    if by_meaning is not None:
        known = {(one.job_id, one.step) for one in found}
        alike = await by_meaning.alike(event.job, agent_id, event.request.goal)
        found = [one for one in alike if (one.job_id, one.step) not in known] + found
    if not found:
        return event
    state = event.state
    memory, is_untrusted = told(found)
    return event.model_copy(
        update={"state": state.model_copy(update={"memory": memory, "is_tainted": state.is_tainted or is_untrusted})}
    )  # fmt: skip


def told(found: Sequence[Remembered]) -> tuple[str, bool]:
    """Steps as a text, the first of them last, as far as there is room; and whether any is untrusted."""
    lines: list[str] = []
    left, is_untrusted = MAX_MEMORY_CHARS, False
    for one in found:
        line = _line(one)
        if len(line) > left:
            break
        lines.insert(0, line)
        left -= len(line) + 1
        is_untrusted = is_untrusted or one.is_untrusted
    return "\n".join(lines), is_untrusted


def _line(one: Remembered) -> str:
    goal = " ".join(one.goal.split())[:MAX_GOAL_CHARS]
    if one.action == FINISH:
        return f"Goal {goal!r}: answered {' '.join(one.observation.split())[:MAX_GOAL_CHARS]!r}"
    step = AgentStep(
        step=one.step, thought="", action=one.action, action_input=one.action_input, observation=one.observation
    )
    return f"Goal {goal!r}: step {digest_of(step)}"
