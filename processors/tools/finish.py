"""Tool: the agent's last word."""

from typing import Annotated, ClassVar

from pydantic import Field

from processors.tools.tool import Tool, ToolArguments, ToolContext, ToolResult
from schemas.request_fields import Text

FINISH = "finish"
MAX_ANSWER_CHARS = 20_000


class FinishArguments(ToolArguments):
    """What it takes."""

    answer: Annotated[Text, Field(min_length=1, max_length=MAX_ANSWER_CHARS, description="What the user gets to read")]


class Finish(Tool[FinishArguments]):
    """Ends the run with an answer."""

    name: ClassVar[str] = FINISH
    description = "End with the answer to the goal. Use it as soon as you know the answer, or that you cannot have it."
    arguments = FinishArguments

    async def run(self, arguments: FinishArguments, context: ToolContext) -> ToolResult:  # noqa: ARG002 as all tools
        """See `Tool.run`."""
        return ToolResult((arguments.answer,), answer=arguments.answer)
