"""Completions from Qwen3-VL-4B-Instruct, served over HTTP with an API of its own: text and one image, with a LoRA."""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from processors.ports import Capabilities, Completion, CompletionRequest
from providers.failures import check_images, senseless, unreachable
from providers.plain_http import asked, make_http_client, read

NAME = "qwen3vl"
MODEL = "Qwen3-VL-4B-Instruct"
PROBE_TIMEOUT_S = 10.0
GEN_CONFIG = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_tokens": "max_new_tokens",
    "repetition_penalty": "repetition_penalty",
}  # fmt: skip
SPEAKERS = {"user": "User", "assistant": "Assistant"}
REASONS = {"eos": "stop", "eos_token": "stop", "max_tokens": "length", "max_new_tokens": "length"}


class _Reply(BaseModel):
    text: str
    finish_reason: str | None = None


class Qwen3VlProvider:
    """See `CompletionProvider`."""

    capabilities = Capabilities(frozenset({*GEN_CONFIG, "mode"}), streams=False, max_images=1)

    def __init__(self, client: httpx.AsyncClient, *, name: str = NAME, model: str = MODEL) -> None:
        """`client`: from `make_http_client`; `model`: as it is called in answers, for the server has only one."""
        self._client, self.name, self.model = client, name, model

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        check_images(self.name, request, self.capabilities)
        async with asked(
            self._client, self.name, "POST", "/generate", json=_body(request), timeout_s=request.timeout_s + 1
        ) as response:
            body = await read(response, self.name)
        try:
            reply = _Reply.model_validate_json(body)
        except ValidationError:
            raise senseless(self.name) from None
        reason = reply.finish_reason or "stop"
        return Completion(reply.text, self.model, REASONS.get(reason, reason), usage=None)  # it counts no tokens

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`; its API has no streams, so it is one piece."""
        completion = await self.complete(request)
        if completion.text:
            await on_delta(completion.text)
        return completion

    async def models(self) -> tuple[str, ...]:
        """See `CompletionProvider.models`; the server lists none, so any answer of it is a good one."""
        try:
            await self._client.get("/", timeout=PROBE_TIMEOUT_S)
        except (httpx.HTTPError, OSError):
            raise unreachable(self.name) from None
        return (self.model,)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def make_qwen3vl(*, base_url: str, connections: int) -> Qwen3VlProvider:
    """The adapter; it needs no key."""
    return Qwen3VlProvider(make_http_client(base_url=base_url, connections=connections))


def _body(request: CompletionRequest) -> dict[str, Any]:
    generation = request.generation
    image = b64encode(request.images[0].content).decode() if request.images else None
    return {
        "prompt": _prompt(request),
        "instruction": [request.instruction] if request.instruction else [],
        "gen_config": {
            wire_name: value
            for name, wire_name in GEN_CONFIG.items()
            if (value := getattr(generation, name)) is not None
        },
        "image": image,
        "mode": generation.mode or "base",
    }


def _prompt(request: CompletionRequest) -> str:
    """Its API has no turns: a conversation is one text in which each says who speaks."""
    if not request.history:
        return request.prompt
    said = [f"{SPEAKERS[turn.role]}: {turn.text}" for turn in request.history]
    return "\n\n".join([*said, f"{SPEAKERS['user']}: {request.prompt}", f"{SPEAKERS['assistant']}:"])
