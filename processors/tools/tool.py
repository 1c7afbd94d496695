"""What a tool is: a name, what a model is told of it, its arguments, and what it says."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from schemas.events import AgentState, Job
from schemas.request_fields import RequestBody

MAX_OBSERVATION_CHARS = 8_000


class ToolArguments(RequestBody):
    """Base of what a model gives to a tool: an unknown field is a mistake that it is told of."""


A = TypeVar("A", bound=ToolArguments)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """On whose behalf a tool is run."""

    job: Job
    step: int
    goal: str
    state: AgentState


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool says.

    Attributes:
        parts: Each is judged by itself: what one of them holds costs none of the others.
        is_untrusted: It is text from documents or from outside.
        answer: The agent's last word, where this is it.
    """

    parts: tuple[str, ...]
    is_untrusted: bool = False
    answer: str | None = None


class Tool(ABC, Generic[A]):
    """Something that an agent can do. `is_outward`: it reaches somebody else."""

    name: ClassVar[str]
    description: str
    arguments: type[A]
    is_outward: ClassVar[bool] = False

    @abstractmethod
    async def run(self, arguments: A, context: ToolContext) -> ToolResult:
        """Do it. What the model can mend is said in the result.

        Raises:
            RetryableError, PermanentError: It cannot be had now, or not at all; the model is told so.
        """

    def described(self) -> dict[str, Any]:
        """As `GET /agents/tools` has it."""
        return {"name": self.name, "description": self.description, "input_schema": self.schema()}

    def schema(self) -> dict[str, Any]:
        """Its arguments as a JSON schema, as models are given it."""
        schema = self.arguments.model_json_schema()
        properties = {
            name: {key: value for key, value in field.items() if key != "title"}
            for name, field in schema.get("properties", {}).items()
        }
        return {
            "type": "object", "properties": properties, "required": schema.get("required", []),
            "additionalProperties": False,
        }  # fmt: skip
