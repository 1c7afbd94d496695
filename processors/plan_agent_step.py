"""Stage: agent-step-requested -> tool-call-requested, or job-finished where a limit is met.

One question to the provider: what is to be done next. The step is stored before anything follows from it, so that the
same event again asks nobody again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from processors.agents.history import counted, redeemed, spent_with
from processors.agents.plan import Plan, parse_plan
from processors.agents.ports import Observed, PlannedStep, StepStore
from processors.agents.progress import progress
from processors.agents.prompt import REPAIR, instruction, prompt, response_format
from processors.completion.ask_model import ask
from processors.completion.fall_over import CONTEXT_TOO_LONG
from processors.completion.fit_generation import UNSUPPORTED, fitted, refusal
from processors.errors import PermanentError
from processors.ports import Completion, CompletionProvider, CompletionRequest, Guard
from processors.stage import DeadLetter, Emit, StageResult
from processors.tools.registry import Tools
from schemas.events import AgentState, AgentStepRequested, JobError, JobFinished, ToolCallRequested
from schemas.generation import GenerationConfig, ResponseFormat

NAME = "plan_agent_step"
MAX_IDENTICAL, STEP_MAX_TOKENS = 3, 2_048
CHARS_PER_TOKEN = 4  # where a provider does not count
SHORT_OBSERVATION_CHARS = 600
JSON_SCHEMA, JSON_OBJECT = "response_format.json_schema", "response_format.json_object"
FREE = GenerationConfig()
REPEATED = "The same call for the third time in a row: it was not made."


class Turns(Guard, Protocol):
    """A provider's guard that also says when it is one's turn."""

    async def turn(self, most_s: float) -> bool:
        """Wait for one's place; False where that takes longer."""
        ...


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """What a run may cost. `max_cost`: None: any; `prices`: of a million tokens, by `provider/model` or provider."""

    max_tokens: int
    max_cost: float | None = None
    prices: Mapping[str, Mapping[Any, float]] = field(default_factory=dict)

    def cost_of(self, provider: str, planned: PlannedStep) -> float:
        """What a step's questions have cost; 0 where nobody knows the price."""
        price = self.prices.get(f"{provider}/{planned.model}") or self.prices.get(provider) or {}
        read, written = planned.prompt_tokens, planned.completion_tokens
        return (read * price.get("input", 0.0) + written * price.get("output", 0.0)) / 1e6

    def met_by(self, state: AgentState) -> JobError | None:
        """Why no further step may be paid for."""
        spent = state.spent
        if spent.tokens >= self.max_tokens:
            told = f"the run has used {spent.tokens} of {self.max_tokens} tokens; ask for less at once"
            return JobError(code="token-budget", message=told)
        if self.max_cost is not None and spent.cost >= self.max_cost:
            told = f"the run has cost {spent.cost:g} of {self.max_cost:g}; ask for less at once"
            return JobError(code="cost-budget", message=told)
        return None


async def plan_agent_step(
    event: AgentStepRequested,
    *,
    providers: Mapping[str, CompletionProvider],
    guards: Mapping[str, Turns],
    tools: Tools,
    steps: StepStore,
    limits: AgentLimits,
    now: datetime,
    recall: Callable[[AgentStepRequested], Any] | None = None,
    adapter_id: str | None = None,
) -> StageResult:
    """Ask what is to be done next.

    Args:
        event: The goal, and what has happened so far.
        providers: Those that this worker has.
        guards: Of each of them.
        tools: What the agent can do.
        steps: Where each step is written once.
        limits: What a run may cost.
        now: The time of the call.
        recall: Awaited at the first step for what the agent knows of earlier runs: the event with it.
        adapter_id: Of the user's adapter that thinks; see `with_adapter`.

    Returns:
        `Emit` with `ToolCallRequested` and `JobProgressed`, or with a `JobFinished`: `token-budget`, `cost-budget`,
        `repeated-step`, `unsupported-parameter`; `DeadLetter("no-such-provider")` where the worker has it not.

    Raises:
        RetryableError, PermanentError: As the provider, its guard and the store raised them.
    """
    job, request = event.job, event.request
    stored = await steps.get(job, event.step)
    if event.step == 1 and recall is not None and not event.state.memory:
        event = await recall(event)
    state = event.state
    if stored is None:
        if (error := limits.met_by(state)) is not None:
            return _ended(event, error, now)
        provider = providers.get(event.provider)
        if provider is None:
            return DeadLetter("no-such-provider", f"the provider {event.provider} is not present at this worker")
        generation, lacking = fitted(_without_format(request.generation_config), provider.capabilities)
        if lacking and request.generation_config.strict is not False:
            return _ended(event, JobError(code=UNSUPPORTED, message=refusal(event.provider, lacking)), now)
        whole = event.model_copy(update={"state": await redeemed(state, job, steps)})
        asked = _Question(
            whole, provider, guards[event.provider], tools, generation,
            adapter_id=adapter_id if generation.mode == "lora" else None,
        )  # fmt: skip
        planned = replace(await asked.planned(), is_tainted=state.is_tainted)
        stored = await steps.plan(job, request.agent_id, event.step, planned, goal=request.goal)
    planned = stored.planned
    known: dict[str, Any] = {
        "spent": spent_with(state.spent, planned, cost=limits.cost_of(event.provider, planned)),
        # Memory may be another one when the same event comes again; what the model had read when it was asked counts.
        "is_tainted": state.is_tainted or planned.is_tainted,
    }
    state = counted(state, planned.action, planned.action_input).model_copy(update=known)
    if state.repeats >= MAX_IDENTICAL:
        await steps.observe(job, event.step, Observed(REPEATED, is_untrusted=state.is_tainted))
        error = JobError(code="repeated-step", message="the agent wanted the same step three times in a row")
        return _ended(event, error, now)
    wanted = ToolCallRequested(
        job=job, provider=event.provider, request=request, step=event.step, thought=planned.thought,
        action=planned.action, action_input=planned.action_input, state=state, timeout_s=event.timeout_s,
        rate_limit=event.rate_limit,
    )  # fmt: skip
    return Emit((wanted, progress(wanted, NAME, at=now)))


def _ended(event: AgentStepRequested, error: JobError, now: datetime) -> Emit:
    return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))


def _without_format(generation: GenerationConfig) -> GenerationConfig:
    """A step has a shape of its own."""
    return generation if generation.response_format is None else generation.model_copy(update={"response_format": None})


class _Question:
    """One step's question, asked at most three times: with less history where it was too long, and once to mend."""

    def __init__(
        self, event: AgentStepRequested, provider: CompletionProvider, guard: Turns, tools: Tools,
        generation: GenerationConfig, *, adapter_id: str | None = None,
    ) -> None:  # fmt: skip
        self._event, self._provider, self._guard, self._tools = event, provider, guard, tools
        self._generation = _shaped(generation, provider.capabilities.parameters, tools)
        self._adapter_id = adapter_id
        self._planned = PlannedStep("", "")
        self._short = False

    async def planned(self) -> PlannedStep:
        """What the model wants; with an empty action where it could not be read twice, of which the model is told."""
        completion = await self._ask("")
        plan = parse_plan(completion.text)
        if plan is None:
            completion = await self._ask(f"\n\n{REPAIR}")
            plan = parse_plan(completion.text)
        if plan is None:
            return replace(self._planned, thought=completion.text.strip()[:500], action="", action_input={})
        return replace(self._planned, thought=plan.thought, action=plan.action, action_input=self._input_of(plan))

    async def _ask(self, more: str) -> Completion:
        try:
            return await self._ask_once(more)
        except PermanentError as error:
            if error.code != CONTEXT_TOO_LONG or self._short:
                raise
        self._short = True
        return await self._ask_once(more)

    async def _ask_once(self, more: str) -> Completion:
        event = self._event
        state = _short(event.state) if self._short else event.state
        is_last = event.step >= event.request.max_steps
        text = prompt(event.request.goal, state, job_id=event.job.job_id, is_last=is_last) + more
        told = instruction(self._tools)
        asked = CompletionRequest(
            job_id=event.job.job_id, prompt=text, instruction=told, generation=self._generation,
            timeout_s=event.work_s, adapter_id=self._adapter_id,
        )  # fmt: skip
        completion = await ask(self._provider, asked, guard=self._guard, most_s=event.work_s)
        usage = completion.usage
        read = usage.prompt_tokens if usage else (len(text) + len(told)) // CHARS_PER_TOKEN
        written = usage.completion_tokens if usage else len(completion.text) // CHARS_PER_TOKEN
        before = self._planned
        self._planned = PlannedStep(
            "", "", model=completion.model, calls=before.calls + 1, prompt_tokens=before.prompt_tokens + read,
            completion_tokens=before.completion_tokens + written,
        )  # fmt: skip
        return completion

    def _input_of(self, plan: Plan) -> dict[str, Any]:
        if isinstance(plan.action_input, dict):
            return plan.action_input
        name = self._tools.only_text_of(plan.action) or "input"
        return {name: plan.action_input}


def _shaped(generation: GenerationConfig, parameters: frozenset[str], tools: Tools) -> GenerationConfig:
    """With the shape of a step, as far as the provider holds its model to one; and what agents do best with."""
    return _shape(parameters, tools) if generation == FREE else _in_shape(generation, parameters, tools)


@lru_cache(maxsize=8)
def _shape(parameters: frozenset[str], tools: Tools) -> GenerationConfig:
    """Where its user wants nothing in particular: made once, for it is the same at each step of nearly all runs."""
    return _in_shape(FREE, parameters, tools)


def _in_shape(generation: GenerationConfig, parameters: frozenset[str], tools: Tools) -> GenerationConfig:
    changes: dict[str, Any] = {}
    if JSON_SCHEMA in parameters:
        changes["response_format"] = response_format(tools)
    elif JSON_OBJECT in parameters:
        changes["response_format"] = ResponseFormat(type="json_object")
    if generation.max_tokens is None and "max_tokens" in parameters:
        changes["max_tokens"] = STEP_MAX_TOKENS
    if generation.temperature is None and "temperature" in parameters:
        changes["temperature"] = 0.0
    return generation.model_copy(update=changes)


def _short(state: AgentState) -> AgentState:
    """As little of it as still tells where the agent is."""
    steps = tuple(
        step.model_copy(update={"observation": step.observation[:SHORT_OBSERVATION_CHARS]}) for step in state.steps[-2:]
    )
    return state.model_copy(update={"steps": steps, "digest": state.digest[-SHORT_OBSERVATION_CHARS:], "memory": ""})
