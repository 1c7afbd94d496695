"""The worker as it is, but for two places where a word in the prompt kills the process. Arguments: as of `assistant`.

`[poison=completion]` kills it while it asks the provider, `[poison=gate]` while it judges the prompt.
"""

import os
from typing import Any

from cli import main
from processors.prompt_policy import PromptPolicy
from providers.openai_compatible import OpenAICompatibleProvider

judge, complete = PromptPolicy.judge, OpenAICompatibleProvider.complete


def poisoned_judge(self: PromptPolicy, text: str) -> Any:
    if "[poison=gate]" in text:
        os._exit(139)
    return judge(self, text)


async def poisoned_complete(self: OpenAICompatibleProvider, request: Any) -> Any:
    if "[poison=completion]" in request.prompt:
        os._exit(137)
    return await complete(self, request)


PromptPolicy.judge = poisoned_judge  # type: ignore[method-assign]  # that is the poison
OpenAICompatibleProvider.complete = poisoned_complete  # type: ignore[method-assign]  # as above
main()
