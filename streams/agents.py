"""The stages of agents: what they are made of, and their agents (Faust's).

agent-step-requested -> plan_agent_step -> tool-call-requested -> run_tool -> agent-step-requested ...
                                │                                    └-> job-finished: the answer
                                ├-> job-finished, where a limit is met
                                └-> completion-requested-<provider>, for a query that one answer is enough for
"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from processors.agent_memory import recall
from processors.decide_query import decide_query
from processors.plan_agent_step import AgentLimits, plan_agent_step
from processors.run_tool import TOOL_TIMEOUT_S, run_tool
from processors.stage import StageResult
from processors.tools.external_api import ExternalApi
from processors.tools.registry import Tools
from processors.tools.tool import Tool
from schemas.events import AgentStepRequested, ToolCallRequested
from schemas.topics import Catalog
from settings import Settings
from sinks.agent_calls import AgentCalls
from sinks.agent_steps import AgentStepStore
from sinks.egress import EgressClient
from sinks.egress_targets import Allowed
from sinks.pool import Pool
from streams.app import StreamApp
from streams.decode import decoder
from streams.guards import make_guard
from streams.live_providers import LiveProviders
from streams.providers import configured
from streams.rules import Newest, answer_rules, prompt_rules
from streams.serve import StageServer, Stream
from vault.live import LiveSettings


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What a worker of agents is composed from; what is to be closed goes on `stack`."""

    settings: Settings
    live: LiveSettings
    stack: AsyncExitStack


async def declare_agent(
    app: StreamApp, server: StageServer, catalog: Catalog, pool: Pool, parts: AgentParts
) -> bool:  # fmt: skip
    """Thinking and doing, in turn; False where no provider is there to think."""
    settings, stack = parts.settings, parts.stack
    adapters: dict[str, Any] = {name: one.make() for name, one in configured(settings).items()}
    if not adapters:
        return False
    if parts.live.follows:
        live = LiveProviders(settings, adapters)
        adapters = dict(live.providers)
        parts.live.subscribe(live.take)
    for adapter in adapters.values():
        stack.push_async_callback(adapter.close)
    step_topic, call_topic = (catalog.full_name(name) for name in ("agent-step-requested", "tool-call-requested"))
    step_requested = app.lane(step_topic, "plan_agent_step", limit=settings.agent_concurrency)
    call_requested = app.lane(call_topic, "run_tool", limit=settings.agent_concurrency)
    guards = {
        name: make_guard(settings, app, catalog, adapter, topic=step_topic) for name, adapter in adapters.items()
    }  # fmt: skip
    steps, tools = AgentStepStore(pool), Tools(_tools(settings, stack))
    limits = AgentLimits(settings.agent_max_tokens, settings.agent_max_cost, settings.prices_per_million_tokens)
    policy, answers = Newest(prompt_rules, settings, parts.live), Newest(answer_rules, settings, parts.live)
    of_steps: dict[str, Any] = {"providers": adapters, "guards": guards, "steps": steps}
    remembered = partial(recall, steps=steps)

    async def plan_step(event: AgentStepRequested, *, now: datetime) -> StageResult:
        if event.is_undecided:
            decided = await decide_query(event, **of_steps)
            if not isinstance(decided, AgentStepRequested):
                return decided
            event = decided
        return await plan_agent_step(event, **of_steps, tools=tools, limits=limits, recall=remembered, now=now)

    @app.agent(step_requested, name="plan_agent_step")
    async def plan_agent_step_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(AgentStepRequested), plan_step, name="plan_agent_step", target=None)

    async def run(event: ToolCallRequested, *, now: datetime) -> StageResult:
        return await run_tool(
            event, tools=tools, steps=steps, policy=policy(), answers=answers(), now=now,
            max_response_chars=settings.max_response_length,
        )  # fmt: skip

    @app.agent(call_requested, name="run_tool")
    async def run_tool_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(ToolCallRequested), run, name="run_tool", target="tools")

    return True


def _tools(settings: Settings, stack: AsyncExitStack) -> list[Tool[Any]]:
    """Those that this deployment has what they need for."""
    tools: list[Tool[Any]] = []
    if settings.agent_api_hosts:
        allowed = Allowed(
            hosts=frozenset(settings.egress_allowed_hosts), ports=frozenset(settings.egress_allowed_ports)
        )
        calls = AgentCalls(
            settings.agent_api_hosts, client=EgressClient(allowed=allowed, timeout_s=TOOL_TIMEOUT_S), allowed=allowed
        )
        stack.push_async_callback(calls.close)
        tools.append(ExternalApi(calls))
    return tools
