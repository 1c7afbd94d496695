"""The worker as it is, but for two places where a word in the prompt kills the process. Arguments: as of `assistant`.

`[poison=completion]` kills it while it asks the provider, `[poison=gate]` while it judges the prompt.
"""

import os
from typing import Any

from cli import main
from processors.filter.prompt_policy import PromptPolicy
from providers.openai_compatible import OpenAICompatibleProvider

judge, stream = PromptPolicy.judge, OpenAICompatibleProvider.stream


def poisoned_judge(self: PromptPolicy, text: str) -> Any:
    if "[poison=gate]" in text:
        os._exit(139)
    return judge(self, text)


async def poisoned_stream(self: OpenAICompatibleProvider, request: Any, on_delta: Any) -> Any:
    if "[poison=completion]" in request.prompt:
        os._exit(137)
    return await stream(self, request, on_delta)


PromptPolicy.judge = poisoned_judge  # type: ignore[method-assign]  # that is the poison
OpenAICompatibleProvider.stream = poisoned_stream  # type: ignore[method-assign]  # as above
main()
