"""Before the first step of a smart job that rules could not tell: one answer, or an agent? Asked once, and stored."""

from collections.abc import Mapping

from processors.agents.classify_query import as_chat, by_model, decided
from processors.agents.history import spent_with
from processors.agents.ports import StepStore
from processors.plan_agent_step import Turns
from processors.ports import CompletionProvider
from processors.stage import DeadLetter, Emit
from schemas.events import AgentStepRequested, CompletionRequested

DECIDED_STEP = 0  # beside the agent's steps


async def decide_query(
    event: AgentStepRequested,
    *,
    providers: Mapping[str, CompletionProvider],
    guards: Mapping[str, Turns],
    steps: StepStore,
) -> Emit | DeadLetter | AgentStepRequested:
    """The event as an agent's, or `Emit` with `CompletionRequested` where one answer is enough.

    Raises:
        RetryableError, PermanentError: As the provider, its guard and the store raised them.
    """
    stored = await steps.get(event.job, DECIDED_STEP)
    if stored is None:
        provider = providers.get(event.provider)
        if provider is None:
            return DeadLetter("no-such-provider", f"the provider {event.provider} is not present at this worker")
        _, planned = await by_model(
            event.request.goal, event.job, provider=provider, guard=guards[event.provider], timeout_s=event.work_s
        )
        stored = await steps.plan(
            event.job, event.request.agent_id, DECIDED_STEP, planned, goal=event.request.goal
        )  # fmt: skip
    decision = decided(stored.planned)
    if decision.kind == "SIMPLE":
        one_answer = CompletionRequested(
            job=event.job, provider=event.provider, request=as_chat(event.request), timeout_s=event.timeout_s,
            rate_limit=event.rate_limit, decision=decision,
        )  # fmt: skip
        return Emit((one_answer,))
    spent = spent_with(event.state.spent, stored.planned, cost=0.0)
    state = event.state.model_copy(update={"decision": decision, "spent": spent})
    return event.model_copy(update={"is_undecided": False, "state": state})
