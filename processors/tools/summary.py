"""Tool: the gist of a long text, or of what the agent has read so far. No model is asked: sentences are chosen."""

import re
from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field

from processors.tools.tool import Tool, ToolArguments, ToolContext, ToolResult
from schemas.request_fields import Text

_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_WORD = re.compile(r"\w{4,}")
MAX_SENTENCES = 200  # that are weighed


class SummaryArguments(ToolArguments):
    """What it takes."""

    text: Annotated[
        Text | None, Field(max_length=20_000, description="What to shorten; without it, all that was observed so far")
    ] = None
    sentences: Annotated[int, Field(ge=1, le=20, description="How many to keep")] = 5


class Summary(Tool[SummaryArguments]):
    """Keeps the sentences whose words come up most."""

    name: ClassVar[str] = "summary"
    description = "Shorten a long text, or what you have observed so far, to its most telling sentences."
    arguments = SummaryArguments

    async def run(self, arguments: SummaryArguments, context: ToolContext) -> ToolResult:
        """See `Tool.run`."""
        state = context.state
        # What the model hands over may be what it has read.
        text = arguments.text or "\n".join([state.digest, *(step.observation for step in state.steps)])
        kept = most_telling(text, arguments.sentences)
        return ToolResult((kept or "There is nothing to shorten yet.",), is_untrusted=state.is_tainted and bool(kept))


def most_telling(text: str, count: int) -> str:
    """The sentences whose words come up most, in their own order."""
    sentences = [found for match in _SENTENCE.findall(text) if (found := match.strip())][:MAX_SENTENCES]
    words = Counter(_WORD.findall(text.lower()))

    def weight(sentence: str) -> float:
        own = _WORD.findall(sentence.lower())
        return sum(words[word] for word in own) / (len(own) + 3)  # a short one is not telling because it is short

    best = sorted(range(len(sentences)), key=lambda at: (-weight(sentences[at]), at))[:count]
    return " ".join(sentences[at] for at in sorted(best))
