"""The stages of agents: what they are made of, and their agents (Faust's).

agent-step-requested -> plan_agent_step -> tool-call-requested -> run_tool -> agent-step-requested ...
                                │                                    └-> job-finished: the answer
                                ├-> job-finished, where a limit is met
                                └-> completion-requested-<provider>, for a query that one answer is enough for
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from processors.agents.decide_query import decide_query
from processors.agents.memory import recall
from processors.agents.recall_by_meaning import RecallByMeaning, tenant
from processors.completion.with_adapter import with_adapter
from processors.documents.document_ports import VectorRepository
from processors.loops import end, repeat
from processors.plan_agent_step import AgentLimits, plan_agent_step
from processors.run_tool import TOOL_TIMEOUT_S, run_tool
from processors.stage import StageResult
from processors.tools.external_api import ExternalApi
from processors.tools.registry import Tools
from processors.tools.search import Search
from processors.tools.tool import Tool
from processors.tools.vector_search import VectorSearch
from schemas.events import AgentStepRequested, ToolCallRequested
from schemas.topics import Catalog
from sinks.adapters import AdapterStore
from sinks.agent_calls import AgentCalls
from sinks.agent_steps import AgentStepStore
from sinks.documents import PostgresDocuments
from sinks.egress import EgressClient
from sinks.egress_targets import Allowed
from sinks.pool import Pool
from streams.app import StreamApp
from streams.decode import decoder
from streams.errors import StartError
from streams.guards import make_guard
from streams.made import Made, adapters_of
from streams.rules import Newest, answer_rules, prompt_rules
from streams.serve import StageServer, Stream

SWEEP_EVERY_S, SWEPT_AT_ONCE = 60.0, 200


async def declare_agent(
    app: StreamApp, server: StageServer, catalog: Catalog, made: Made, *, has_vectors: bool
) -> bool:  # fmt: skip
    """Thinking and doing, in turn; False where no provider is there to think.

    `has_vectors`: this process can ask for them, so its agents search documents.

    Raises:
        StartError: There is no database, or the vectors cannot be opened.
    """
    settings, pool = made.settings, made.pool
    if pool is None:
        raise StartError("DATABASE_URL is not set: agents keep their steps there; or run `assistant up`")
    adapters = adapters_of(made)
    if not adapters:
        return False
    step_topic, call_topic = (catalog.full_name(name) for name in ("agent-step-requested", "tool-call-requested"))
    step_requested = app.lane(step_topic, "plan_agent_step", limit=settings.agent_concurrency)
    call_requested = app.lane(call_topic, "run_tool", limit=settings.agent_concurrency)
    guards = {
        name: make_guard(settings, app, catalog, adapter, topic=step_topic) for name, adapter in adapters.items()
    }  # fmt: skip
    steps, tools = AgentStepStore(pool), Tools(_tools(made, pool, adapters, has_vectors=has_vectors))
    limits = AgentLimits(settings.agent_max_tokens, settings.agent_max_cost, settings.prices_per_million_tokens)
    policy, answers = Newest(prompt_rules, settings, made.live), Newest(answer_rules, settings, made.live)
    of_steps: dict[str, Any] = {"providers": adapters, "guards": guards, "steps": steps}
    by_meaning = _recall(made, adapters, steps, has_vectors=has_vectors)
    remembered = partial(recall, steps=steps, by_meaning=by_meaning)
    plan = partial(plan_agent_step, **of_steps, tools=tools, limits=limits, recall=remembered)
    trained = AdapterStore(pool)

    async def plan_step(event: AgentStepRequested, *, now: datetime) -> StageResult:
        if event.is_undecided:
            decided = await decide_query(event, **of_steps)
            if not isinstance(decided, AgentStepRequested):
                return decided
            event = decided
        return await with_adapter(event, stage=plan, adapters=trained, now=now)

    @app.agent(step_requested, name="plan_agent_step")
    async def plan_agent_step_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(AgentStepRequested), plan_step, name="plan_agent_step", target=None)

    async def run(event: ToolCallRequested, *, now: datetime) -> StageResult:
        return await run_tool(
            event, tools=tools, steps=steps, policy=policy(), answers=answers(), now=now,
            max_response_chars=settings.max_response_length, keep=by_meaning.keep if by_meaning is not None else None,
        )  # fmt: skip

    @app.agent(call_requested, name="run_tool")
    async def run_tool_agent(stream: Stream) -> None:
        # The plan has told which tool is run: a record less of six for each step.
        await server.at_once(
            stream, decoder(ToolCallRequested), run, name="run_tool", target="tools", tells_start=False
        )

    return True


def _recall(
    made: Made, adapters: Mapping[str, Any], steps: AgentStepStore, *, has_vectors: bool
) -> RecallByMeaning | None:
    """Where there are vectors, and somebody who makes them."""
    embedding = [name for name, adapter in adapters.items() if adapter.capabilities.embeds]
    if not has_vectors or not embedding:
        return None
    chosen = made.settings.embedding_provider
    provider = adapters[chosen if chosen in embedding else embedding[0]]
    sweeping = asyncio.create_task(sweep_memory(steps, made.vectors.opened()), name="forgotten memories")
    made.stack.push_async_callback(end, sweeping)
    return RecallByMeaning(made.vectors.opened(), provider, steps)


async def sweep_memory(steps: AgentStepStore, vectors: VectorRepository) -> None:
    """Delete the vectors of what was forgotten, now and every minute, until cancelled."""

    async def delete() -> None:
        for job_id, user_id, agent_id in await steps.forgotten_with_vectors(limit=SWEPT_AT_ONCE):
            await vectors.delete_document(tenant(user_id, agent_id), job_id)
            await steps.vectors_are_gone(job_id)

    await repeat(delete, "sweeping forgotten memories", every_s=SWEEP_EVERY_S)


def _tools(made: Made, pool: Pool, adapters: Mapping[str, Any], *, has_vectors: bool) -> list[Tool[Any]]:
    """Those that this deployment has what they need for."""
    settings, tools = made.settings, list[Tool[Any]]()
    if has_vectors:
        embedding = {name: adapter for name, adapter in adapters.items() if adapter.capabilities.embeds}
        parts: dict[str, Any] = {
            "ledger": PostgresDocuments(pool), "vectors": made.vectors.opened(), "providers": embedding,
        }  # fmt: skip
        tools += [Search(**parts), VectorSearch(**parts)]
    if settings.agent_api_hosts:
        allowed = Allowed(
            hosts=frozenset(settings.egress_allowed_hosts), ports=frozenset(settings.egress_allowed_ports)
        )
        calls = AgentCalls(
            settings.agent_api_hosts, client=EgressClient(allowed=allowed, timeout_s=TOOL_TIMEOUT_S), allowed=allowed
        )
        made.stack.push_async_callback(calls.close)
        tools.append(ExternalApi(calls))
    return tools
