"""LM Studio: OpenAI's API with names of its own for some parameters. Source: lmstudio.ai/docs, OpenAI compatibility."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from processors.errors import PermanentError
from processors.ports import Completion, CompletionRequest
from providers.openai_client import make_client
from providers.openai_compatible import Dialect, OpenAICompatibleProvider

NAME = "lmstudio"
EMBEDS = "embed"  # in the name of each model that only makes vectors
DIALECT = Dialect(
    {
        "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "top_k": "top_k", "seed": "seed",
        "stop": "stop", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
        "repetition_penalty": "repeat_penalty",
    },
    response_formats=frozenset({"json_schema"}),  # it refuses `json_object`
    max_images=10,
)  # fmt: skip


class LMStudioProvider(OpenAICompatibleProvider):
    """See `CompletionProvider`. Where no model is named, the first one is asked that it lists at the time."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        return await super().complete(await self._with_model(request))

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`."""
        return await super().stream(await self._with_model(request), on_delta)

    async def _with_model(self, request: CompletionRequest) -> CompletionRequest:
        if request.model or self.model:
            return request
        listed = [model for model in await self.models() if EMBEDS not in model.lower()]
        if not listed:
            raise PermanentError("provider-http-404", f"{NAME} has no model: load one in it, or set LMSTUDIO_MODEL")
        return replace(request, model=listed[0])


def make_lmstudio(
    *, base_url: str, api_key: str, model: str, embedding_model: str, connections: int
) -> LMStudioProvider:
    """The adapter. Proxies of the environment are not asked: it runs in one's own network.

    Args:
        base_url: Ends in `/v1`.
        api_key: Sent as a bearer token.
        model: For completions; empty: the first that it lists.
        embedding_model: For embeddings.
        connections: How many at most; more callers wait.
    """
    client = make_client(base_url=base_url, api_key=api_key, connections=connections, trust_env=False)
    return LMStudioProvider(client, name=NAME, model=model, embedding_model=embedding_model, dialect=DIALECT)
