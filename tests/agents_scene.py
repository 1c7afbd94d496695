"""Agents without Kafka and Postgres: steps in memory, a model that says what it is told to, and both stages in turn."""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from processors.agents.ports import Approval, Observed, OutwardReply, PlannedStep, Remembered, StoredStep
from processors.filter.answer_policy import AnswerPolicy
from processors.filter.prompt_policy import PromptPolicy
from processors.plan_agent_step import AgentLimits, plan_agent_step
from processors.ports import Capabilities, Completion, CompletionRequest, Execution, Usage
from processors.run_tool import run_tool
from processors.stage import Emit, StageResult
from processors.tools.external_api import ExternalApi
from processors.tools.registry import Tools
from schemas.events import AgentStep, AgentStepRequested, Event, Job, JobFinished, JobProgressed, ToolCallRequested
from schemas.requests import AgentRequest
from tests.factories import NOW, job

SHAPED = frozenset({"temperature", "max_tokens", "response_format.json_schema"})
POLICY = PromptPolicy()
ORDER = "https://api.example/orders/4712"


def call(tool: str, thought: str = "so", **given: Any) -> str:
    """What a model says that wants this."""
    return json.dumps({"thought": thought, "action": tool, "action_input": given})


def get(url: str = ORDER) -> str:
    """A call out."""
    return call("external_api", url=url)


def finish(answer: str) -> str:
    return call("finish", answer=answer)


class ScriptedModel:
    """Says what it is given, one after another; a callable is asked with the request, an error is raised."""

    name, model = "openai", "m-1"

    def __init__(self, *says: str | Exception | Callable[[CompletionRequest], str], can: frozenset[str] = SHAPED):
        self.says = deque(says)
        self.asked: list[CompletionRequest] = []
        self.capabilities = Capabilities(can)

    async def complete(self, request: CompletionRequest) -> Completion:
        self.asked.append(request)
        said = self.says.popleft()
        if isinstance(said, Exception):
            raise said
        return Completion(said(request) if callable(said) else said, "m-1", "stop", Usage(100, 10, 110))

    async def stream(self, request: CompletionRequest, on_delta: Any) -> Completion:
        raise AssertionError("nobody listens to an agent's thoughts")

    async def models(self) -> tuple[str, ...]:
        return ("m-1",)


class OpenTurns:
    async def turn(self, most_s: float) -> bool:
        return True

    def calling(self, execution: Execution) -> AbstractContextManager[None]:
        return nullcontext()


class MemorySteps:
    """`StepStore` in a dict. `remembered`: of other jobs."""

    def __init__(self, remembered: Sequence[Remembered] = ()) -> None:
        self.rows: dict[tuple[UUID, int, int], StoredStep] = {}
        self.remembered = remembered
        self.with_vectors: set[UUID] = set()
        self.claims: set[tuple[UUID, int, int]] = set()  # cleared where their time has passed

    async def get(self, job: Job, step: int) -> StoredStep | None:
        return self.rows.get((job.job_id, job.run, step))

    async def plan(self, job: Job, agent_id: str, step: int, planned: PlannedStep, *, goal: str) -> StoredStep:
        return self.rows.setdefault((job.job_id, job.run, step), StoredStep(planned))

    async def observe(self, job: Job, step: int, observed: Observed) -> StoredStep:
        at = (job.job_id, job.run, step)
        if self.rows[at].observed is None:
            self.rows[at] = replace(self.rows[at], observed=observed)
        return self.rows[at]

    async def ask(self, job: Job, step: int) -> Approval:
        at = (job.job_id, job.run, step)
        self.rows[at] = replace(self.rows[at], approval=self.rows[at].approval or "requested")
        return self.rows[at].approval or "requested"

    async def claim(self, job: Job, step: int, *, for_s: float) -> bool:
        at = (job.job_id, job.run, step)
        if at in self.claims or self.rows[at].observed is not None:
            return False
        self.claims.add(at)
        return True

    async def whole(self, job: Job, numbers: Sequence[int]) -> Sequence[AgentStep]:
        found = {}
        for (job_id, run, step), row in sorted(self.rows.items(), key=lambda one: one[0][1:]):
            if job_id == job.job_id and run <= job.run and step in numbers and row.observed is not None:
                planned, observed = row.planned, row.observed
                found[step] = AgentStep(
                    step=step, thought=planned.thought, action=planned.action, action_input=planned.action_input,
                    observation=observed.text, risk=observed.risk, is_untrusted=observed.is_untrusted,
                )  # fmt: skip
        return [found[step] for step in sorted(found)]

    async def recent(self, job: Job, agent_id: str, *, limit: int) -> Sequence[Remembered]:
        return self.remembered[:limit]

    async def these(self, job: Job, agent_id: str, meant: Sequence[tuple[UUID, int]]) -> Sequence[Remembered]:
        known = {(one.job_id, one.step): one for one in self.remembered}
        return [known[one] for one in meant if one in known]

    async def has_vectors(self, job: Job) -> None:
        self.with_vectors.add(job.job_id)

    def decide(self, step: int, said: Approval) -> None:
        (at,) = [at for at in self.rows if at[2] == step]
        self.rows[at] = replace(self.rows[at], approval=said)


@dataclass
class FakeCalls:
    """`OutwardCalls` to a host that answers `replies` by URL; an error is raised. `made`: all calls."""

    replies: Mapping[str, str | Exception] = field(default_factory=dict)
    hosts: Sequence[str] = ("api.example",)
    made: list[tuple[str, str, bytes | None, dict[str, str]]] = field(default_factory=list)

    async def call(
        self, method: Literal["GET", "POST"], url: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> OutwardReply:
        self.made.append((method, url, body, dict(headers)))
        reply = self.replies.get(url, "{}")
        if isinstance(reply, Exception):
            raise reply
        return OutwardReply(200, "application/json", reply)


def requested(goal: str = "a goal", **more: Any) -> AgentStepRequested:
    at = {name: more.pop(name) for name in ("job", "step", "state", "is_undecided", "timeout_s") if name in more}
    request = AgentRequest(**{"goal": goal, "agent_id": "tester", "max_steps": 5} | more)
    return AgentStepRequested(
        **{"job": job(kind="agent"), "provider": "openai", "request": request, "timeout_s": 9} | at
    )


class Scene:
    """A worker: its model, tools and steps."""

    def __init__(
        self, model: ScriptedModel, *, steps: MemorySteps | None = None, calls: FakeCalls | None = None,
        tools: Sequence[Any] = (), limits: AgentLimits | None = None,
    ) -> None:  # fmt: skip
        self.model, self.steps, self.calls = model, steps or MemorySteps(), calls or FakeCalls()
        self.tools = Tools([ExternalApi(self.calls), *tools])
        self.limits = limits or AgentLimits(100_000)
        self.told: list[JobProgressed] = []

    async def plan(self, event: AgentStepRequested, **more: Any) -> StageResult:
        return await plan_agent_step(
            event, providers={"openai": self.model}, guards={"openai": OpenTurns()}, tools=self.tools,
            steps=self.steps, limits=self.limits, now=NOW, **more,
        )  # fmt: skip

    async def run(self, event: ToolCallRequested, **more: Any) -> StageResult:
        return await run_tool(
            event, tools=self.tools, steps=self.steps, policy=POLICY, answers=AnswerPolicy(), max_response_chars=20_000,
            now=NOW, **more,
        )  # fmt: skip

    async def one(self, event: Event) -> Any:
        """What follows from an event: the next event, or whatever else the stage decided."""
        assert isinstance(event, AgentStepRequested | ToolCallRequested)
        result = await (self.plan(event) if isinstance(event, AgentStepRequested) else self.run(event))
        if not isinstance(result, Emit):
            return result
        following, *told = result.events
        assert all(isinstance(one, JobProgressed) for one in told)
        self.told += told  # type: ignore[arg-type]
        return following

    async def to_the_end(self, event: Event) -> JobFinished:
        """The outcome."""
        while not isinstance(event, JobFinished):
            event = await self.one(event)
            assert isinstance(event, Event), event
        return event


def code_of(finished: JobFinished) -> str | None:
    return finished.error.code if finished.error else None


def answer_of(finished: JobFinished) -> str:
    assert finished.result is not None, finished.error
    answer: str = finished.result["answer"]
    return answer
