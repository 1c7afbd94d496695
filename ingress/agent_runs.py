"""What the ingress knows of agents: which tools they have, and what is stored of their runs."""

from collections.abc import Sequence
from typing import Any, Literal

from processors.agents.ports import OutwardReply
from processors.errors import PermanentError
from processors.tools.external_api import ExternalApi
from processors.tools.registry import Tools
from processors.tools.search import Search
from processors.tools.tool import Tool
from processors.tools.vector_search import VectorSearch
from sinks.agent_steps import AgentStepStore, HistoryStep


class Agents:
    """`steps`: as they are stored; `tools`: as `GET /agents/tools` tells of them."""

    def __init__(self, steps: AgentStepStore, *, api_hosts: Sequence[str], has_vectors: bool) -> None:
        """`api_hosts`: that `external_api` may call; without any there is no such tool; `has_vectors`: or no search."""
        self.steps = steps
        more: list[Tool[Any]] = []
        if has_vectors:
            unused: Any = None  # they are told of, and not run here
            more += [tool(ledger=unused, vectors=unused, providers={}) for tool in (Search, VectorSearch)]
        if api_hosts:
            more.append(ExternalApi(_Named(api_hosts)))
        self.tools = Tools(more).described


class _Named:
    """Hosts that are told of, and not called from here."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = hosts

    async def call(self, method: Literal["GET", "POST"], url: str, **_: Any) -> OutwardReply:
        """Never."""
        raise PermanentError("call-refused", f"{method} {url} is a worker's to call")


def shown(step: HistoryStep) -> dict[str, Any]:
    """A step as its user sees it."""
    view: dict[str, Any] = {
        "step": step.step, "thought": step.thought, "action": step.action, "action_input": step.action_input,
        "observation": step.observation,
    }  # fmt: skip
    return view if step.approval is None else {**view, "approval": step.approval}


def waiting_call(history: Sequence[HistoryStep]) -> dict[str, Any] | None:
    """The call that its user is to approve, if there is one."""
    if not history or history[-1].approval != "requested" or history[-1].observation is not None:
        return None
    last = history[-1]
    return {"step": last.step, "tool": last.action, "action_input": last.action_input}
