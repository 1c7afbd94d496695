"""Runs an agent over goals: both of its stages in turn, with its real tools, against a host on this machine."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

from aiohttp import web

from bench.agent_tasks.tasks import API, DOCUMENTS, Task
from processors.documents.document_ports import Collection, EmbeddedChunk
from processors.errors import PermanentError, RetryableError
from processors.filter.answer_policy import AnswerPolicy
from processors.plan_agent_step import AgentLimits, plan_agent_step
from processors.ports import Capabilities, Completion, CompletionRequest, Usage
from processors.run_tool import run_tool
from processors.stage import Emit, Later
from processors.tools.external_api import ExternalApi
from processors.tools.registry import Tools
from processors.tools.search import Search
from schemas.events import AgentStepRequested, Chunk, Event, JobFinished, ToolCallRequested
from schemas.generation import GenerationConfig
from schemas.requests import AgentRequest
from sinks.agent_calls import AgentCalls
from sinks.egress import EgressClient
from sinks.egress_targets import Allowed
from tests.agents_scene import POLICY, MemorySteps, OpenTurns
from tests.factories import NOW, job
from tests.fakes import MemoryDocuments, MemoryVectors

USER, WHERE = "alice", Collection("local", "any", 1)
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a run. `step_tokens`: what a model may write at each step; `timeout_s`: of each question."""

    steps: int = 6
    step_tokens: int | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of a goal. `steps`: how many were made; `calls`: how often the model was asked."""

    task: Task
    is_reached: bool
    said: str
    steps: int
    calls: int
    seconds: float


class PerfectModel:
    """Makes the moves of the task whose goal it is given, one after another."""

    name, model = "scripted", "perfect"
    capabilities = Capabilities(frozenset({"temperature", "max_tokens", "response_format.json_schema"}))

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        goal = request.prompt.partition("\n")[0].removeprefix("Goal: ")
        task = next(one for one in self._tasks if re.fullmatch(re.escape(one.goal).replace(r"\{host\}", r"\S+?"), goal))
        made = len(re.findall(r"^Step \d+: ", request.prompt, re.MULTILINE))
        return Completion(task.moves[made](request.prompt), self.model, "stop", Usage(100, 10, 110))

    async def stream(self, request: CompletionRequest, on_delta: Any) -> Completion:
        """Never: nobody listens to an agent's thoughts."""
        raise NotImplementedError  # a part of the port that this bench has no use for

    async def models(self) -> tuple[str, ...]:
        """Its own."""
        return (self.model,)


@asynccontextmanager
async def api() -> AsyncIterator[str]:
    """The host of the goals; its address."""

    async def answer(request: web.Request) -> web.Response:
        found = API.get(request.path)
        return web.json_response(
            {"error": "there is no such thing"} if found is None else found, status=200 if found else 404
        )

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    yield f"http://{HOST}:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def make_tools() -> AsyncIterator[Tools]:
    """`search` over the documents, `external_api` to the host, `summary` and `finish`."""
    ledger, vectors = MemoryDocuments(), MemoryVectors()
    for name, text in DOCUMENTS.items():
        chunk = Chunk(index=0, text=text, start=0, end=len(text), tokens=len(text) // 4)
        await vectors.store(
            USER, WHERE, document_id=uuid4(), version_id=ledger.add(USER, WHERE), source=f"{name}.md",
            chunks=[EmbeddedChunk(chunk, (1.0,))],
        )  # fmt: skip
    allowed = Allowed(private=True)
    calls = AgentCalls([HOST], client=EgressClient(allowed=allowed, timeout_s=5.0), allowed=allowed)
    anyone: Any = ledger  # it is asked for no more
    yield Tools([Search(ledger=anyone, vectors=vectors, providers={}), ExternalApi(calls)])
    await calls.close()


async def run(task: Task, provider: Any, *, tools: Tools, address: str, bounds: Bounds) -> Reached:
    """One goal. Whoever has it approves every call."""
    steps, began = MemorySteps(), monotonic()
    request = AgentRequest(
        goal=task.goal.replace("{host}", address), agent_id="bench", max_steps=bounds.steps,
        generation_config=GenerationConfig(max_tokens=bounds.step_tokens),
    )  # fmt: skip
    event: Event = AgentStepRequested(
        job=job(kind="agent", user_id=USER), provider=provider.name, request=request, timeout_s=bounds.timeout_s
    )  # fmt: skip
    said = ""
    providers: Mapping[str, Any] = {provider.name: provider}
    while not isinstance(event, JobFinished):
        try:
            if isinstance(event, AgentStepRequested):
                result = await plan_agent_step(
                    event, providers=providers, guards={provider.name: OpenTurns()}, tools=tools, steps=steps,
                    limits=AgentLimits(10_000_000), now=NOW,
                )  # fmt: skip
            else:
                assert isinstance(event, ToolCallRequested)
                result = await run_tool(
                    event, tools=tools, steps=steps, policy=POLICY, answers=AnswerPolicy(),
                    max_response_chars=20_000, now=NOW,
                )  # fmt: skip
                if isinstance(result, Later):
                    steps.decide(event.step, "approved")
                    continue
        except (RetryableError, PermanentError) as error:
            said = f"[{error.code}]"
            break
        assert isinstance(result, Emit), result
        event = result.events[0]
    else:
        error_code = f"[{event.error.code}]" if event.error is not None else ""
        said = str((event.result or {}).get("answer", error_code))
    calls = sum(row.planned.calls for row in steps.rows.values())
    return Reached(task, task.is_reached(said), said, len(steps.rows), calls, monotonic() - began)
