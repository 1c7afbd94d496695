"""The embedded models: llama.cpp's server answers, and one of ours embeds; both have OpenAI's API.

Source: llama.cpp, tools/server/README.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
from openai import AsyncOpenAI

from processors.errors import PermanentError, RetryableError
from processors.ports import Capabilities, Completion, CompletionRequest, EmbeddingPurpose, Embeddings
from providers.failures import UNREACHABLE
from providers.local_adapters import BARE, loaded_adapters, missing
from providers.openai_client import make_client
from providers.openai_compatible import Dialect, OpenAICompatibleProvider

DIALECT = Dialect(
    {
        "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "top_k": "top_k", "seed": "seed",
        "stop": "stop", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
        "repetition_penalty": "repeat_penalty",
    }
)  # fmt: skip
NAME = "local"
LOADED_WITHIN_S, ASK_EVERY_S = 10.0, 0.25
LOADING = "provider-http-503"  # nobody else says it of a server that is ours


@dataclass(frozen=True, slots=True)
class _Placed(CompletionRequest):
    """A request that an adapter answers. `place`: its number in the server's list."""

    place: int = 0


class LocalProvider(OpenAICompatibleProvider):
    """See `CompletionProvider` and `EmbeddingProvider`: two servers, of which either may be missing."""

    def __init__(
        self, client: AsyncOpenAI, *, model: str, embedding_client: AsyncOpenAI | None, embedding_model: str | None,
        completes: bool, adapters: bool = False,
    ) -> None:  # fmt: skip
        """`adapters`: its server is one of ours, and has those that were trained."""
        super().__init__(
            client, name=NAME, model=model if completes else "", embedding_model=embedding_model, dialect=DIALECT
        )
        self._embedding_client, self._completes = embedding_client, completes
        self._adapters = adapters
        self._asking: httpx.AsyncClient | None = None  # from the first request with an adapter on
        if adapters:
            self.capabilities = replace(self.capabilities, parameters=self.capabilities.parameters | {"mode"})
        if not completes:
            self.capabilities = Capabilities(frozenset(), streams=False, embeds=True)

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        self._check_completes()
        asked, ask = await self._placed(request), super().complete
        return await self._once_loaded(lambda: ask(asked), request, has_told=lambda: False)

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`."""
        self._check_completes()
        asked, ask = await self._placed(request), super().stream
        told = False

        async def tell(text: str) -> None:
            nonlocal told
            told = True
            await on_delta(text)

        return await self._once_loaded(lambda: ask(asked, tell), request, has_told=lambda: told)

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        """See `EmbeddingProvider.embed`."""
        return await self._embed(texts, timeout_s=timeout_s, extra={"input_type": purpose})

    async def close(self) -> None:
        """Close its connections."""
        await super().close()
        if self._asking is not None:
            await self._asking.aclose()
        if self._embedding_client is not None:
            await self._embedding_client.close()

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        body = super()._body(request)
        if isinstance(request, _Placed):
            body["lora"] = [{"id": request.place, "scale": 1.0}]
        elif self._adapters:
            body["lora"] = BARE
        return body

    async def _once_loaded(
        self, ask: Callable[[], Awaitable[Completion]], request: CompletionRequest, *, has_told: Callable[[], bool]
    ) -> Completion:
        """A server that takes another adapter hangs up, and says 503 for a second or two: for the caller a wait."""
        waits_until, was_cut_off = time.monotonic() + min(LOADED_WITHIN_S, request.timeout_s / 2), False
        while True:
            try:
                return await ask()
            except RetryableError as error:
                cut_off = error.code == UNREACHABLE and not was_cut_off  # a connection that was kept; not a second time
                loads = error.code == LOADING and time.monotonic() < waits_until
                if not self._adapters or has_told() or not (cut_off or loads):
                    raise
                was_cut_off = was_cut_off or cut_off
            await asyncio.sleep(ASK_EVERY_S)

    async def _placed(self, request: CompletionRequest) -> CompletionRequest:
        """The same request with the place of its adapter in the server's list, if it has one.

        Raises:
            PermanentError: `adapter-missing`.
        """
        if request.adapter_id is None:
            return request
        if self._asking is None:
            self._asking = httpx.AsyncClient(timeout=request.timeout_s, trust_env=False)
        place: int | None = None
        try:
            async with asyncio.timeout(min(LOADED_WITHIN_S, request.timeout_s / 2)):
                # One that was trained just now, or whose server has just started, is there within seconds.
                while place is None:
                    place = (await loaded_adapters(self._asking, str(self._client.base_url))).get(request.adapter_id)
                    if place is None:
                        await asyncio.sleep(ASK_EVERY_S)
        except TimeoutError:
            raise missing() from None
        given = {name: getattr(request, name) for name in CompletionRequest.__dataclass_fields__}
        return _Placed(**given, place=place)

    def _embedder(self) -> AsyncOpenAI:
        if self._embedding_client is None:
            raise PermanentError("provider-no-embeddings", f"{NAME} does not embed here: set LOCAL_EMBEDDING_URL")
        return self._embedding_client

    def _check_completes(self) -> None:
        if not self._completes:
            raise PermanentError("provider-no-model", f"{NAME} only embeds here: set LOCAL_BASE_URL, or ask another")


def make_local(
    *,
    base_url: str | None,
    model: str,
    embedding_url: str | None,
    embedding_model: str,
    connections: int,
    adapters: bool = False,
) -> LocalProvider:
    """The adapter. It needs no key, and no proxy of the environment is asked.

    Args:
        base_url: Of llama.cpp's server, ends in `/v1`; None: it does not complete.
        model: For completions.
        embedding_url: Of the embedding server, ends in `/v1`; None: it does not embed.
        embedding_model: For embeddings.
        connections: How many at most, to each; more callers wait.
        adapters: The first is a server of ours that takes trained adapters from a folder.

    Raises:
        ValueError: There is neither.
    """

    def client(url: str) -> AsyncOpenAI:
        return make_client(base_url=url, api_key="none", connections=connections, trust_env=False)

    if (first := base_url or embedding_url) is None:
        raise ValueError("neither of the two servers is named")
    return LocalProvider(
        client(first), model=model, embedding_client=client(embedding_url) if embedding_url else None,
        embedding_model=embedding_model if embedding_url else None, completes=base_url is not None,
        adapters=adapters,
    )  # fmt: skip
