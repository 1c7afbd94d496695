"""An agent's run: whether there is to be one, and then thinking and tools by turns."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.event_base import Event
from schemas.job_events import WorkEvent
from schemas.requests import AgentRequest

TOOL_S = 10.0  # more than any tool of an agent may take


class Decision(Event):
    """Whether a query needs one answer or an agent, and who says so: our rules, or a model that was asked."""

    kind: Literal["SIMPLE", "COMPLEX"]
    reason: str
    by: Literal["rules", "model"] = "rules"


class AgentStep(Event):
    """A step of an agent that is over: what it thought and did, and what came of it.

    `risk`: how surely the observation holds instructions for a model (0-1); `is_untrusted`: it holds text that came
    from documents or from outside.
    """

    step: Annotated[int, Field(ge=1)]
    thought: str
    action: str
    action_input: dict[str, Any] = {}
    observation: str
    risk: float = 0.0
    is_untrusted: bool = False


class AgentSpent(Event):
    """What a run of an agent has cost so far. `cost`: in the currency of the prices, 0 where there are none."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens


class AgentState(Event):
    """What a run of an agent knows; it rides in its events.

    `steps`: the newest ones; `claimed`: numbers of those before them that are whole, too, but too large to ride along,
    and are read from where they are stored; `digest`: what is left of older ones; `memory`: what it knows of earlier
    runs;
    `is_tainted`: it has read text that came from documents or from outside; `last_call`, `repeats`: how often in a row
    it has wanted the same.
    """

    steps: tuple[AgentStep, ...] = ()
    claimed: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=20)] = ()
    digest: str = ""
    memory: str = ""
    spent: AgentSpent = AgentSpent()
    is_tainted: bool = False
    last_call: str = ""
    repeats: int = 0
    decision: Decision | None = None


class AgentStepRequested(WorkEvent):
    """An agent is to think about its next step. `is_undecided`: first, whether the query needs an agent at all."""

    provider: str
    request: AgentRequest
    step: Annotated[int, Field(ge=1)] = 1
    state: AgentState = AgentState()
    is_undecided: bool = False


class ToolCallRequested(WorkEvent):
    """An agent has thought, and a tool is to be run. `action_input`: as the model gave it, not checked yet."""

    provider: str
    request: AgentRequest
    step: Annotated[int, Field(ge=1)]
    thought: str
    action: str
    action_input: dict[str, Any]
    state: AgentState

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s + TOOL_S  # its tool has a time of its own
