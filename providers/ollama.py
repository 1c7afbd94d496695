"""Completions and embeddings from Ollama. Source: ollama, docs/api.md."""

from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from processors.ports import (
    MAX_TEXTS,
    Capabilities,
    Completion,
    CompletionRequest,
    EmbeddingPurpose,
    Embeddings,
    Usage,
)
from providers.failures import broke_off, check_images, check_texts, said_on_the_way, senseless
from providers.lines import Lines
from providers.plain_http import asked, make_http_client, pieces, read
from providers.telling import tell
from providers.vectors import embeddings

NAME = "ollama"
MODELS_TIMEOUT_S = 10.0
OPTIONS = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_tokens": "num_predict", "seed": "seed",
    "stop": "stop", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip


class _Message(BaseModel):
    content: str = ""  # a model's thoughts come beside it


class _Part(BaseModel):
    """A reply, or a line of a streamed one; the last has `done`."""

    model: str = ""
    message: _Message = _Message()
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: str | None = None
    status_code: int | None = None


class _Vectors(BaseModel):
    model: str
    embeddings: list[list[float]]
    prompt_eval_count: int | None = None


class _Tag(BaseModel):
    name: str


class _Tags(BaseModel):
    models: list[_Tag]


class OllamaProvider:
    """See `CompletionProvider` and `EmbeddingProvider`."""

    capabilities = Capabilities(
        frozenset({*OPTIONS, "response_format.json_object", "response_format.json_schema"}), max_images=10, embeds=True
    )

    def __init__(self, client: httpx.AsyncClient, *, name: str = NAME, model: str, embedding_model: str) -> None:
        """`client`: from `make_http_client`."""
        self._client, self.name, self.model, self.embedding_model = client, name, model, embedding_model

    # --- the ports ---

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        check_images(self.name, request, self.capabilities)
        body = self._body(request) | {"stream": False}
        async with asked(
            self._client, self.name, "POST", "/api/chat", json=body, timeout_s=request.timeout_s + 1
        ) as response:
            part = self._read(_Part, await read(response, self.name))
        if part.error is not None or not part.done:
            raise senseless(self.name)
        return _completion(part.message.content, part, request.model or self.model)

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`."""
        check_images(self.name, request, self.capabilities)
        parts: list[_Part] = []
        await tell(self._texts(request, parts), on_delta)
        if not parts or not parts[-1].done:
            raise broke_off(self.name)
        text = "".join(part.message.content for part in parts)
        return _completion(text, parts[-1], request.model or self.model)

    async def _texts(self, request: CompletionRequest, parts: list[_Part]) -> AsyncGenerator[str, None]:
        body = self._body(request) | {"stream": True}
        lines = Lines()
        async with asked(
            self._client, self.name, "POST", "/api/chat", json=body, timeout_s=request.timeout_s + 1
        ) as response:
            async for piece in pieces(response, self.name):
                for line in filter(None, lines.feed(piece)):
                    part: _Part = self._read(_Part, line)
                    if part.error is not None:
                        raise said_on_the_way(self.name, part.status_code, said=(part.error,))
                    parts.append(part)
                    if part.message.content:
                        yield part.message.content

    async def models(self) -> tuple[str, ...]:
        """See `CompletionProvider.models`."""
        async with asked(self._client, self.name, "GET", "/api/tags", timeout_s=MODELS_TIMEOUT_S) as response:
            tags: _Tags = self._read(_Tags, await read(response, self.name))
        return tuple(tag.name for tag in tags.models)

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:  # noqa: ARG002 its API makes no difference
        """See `EmbeddingProvider.embed`."""
        check_texts(texts, MAX_TEXTS)
        body = {"model": self.embedding_model, "input": list(texts)}
        async with asked(self._client, self.name, "POST", "/api/embed", json=body, timeout_s=timeout_s + 1) as response:
            found: _Vectors = self._read(_Vectors, await read(response, self.name))
        return embeddings(
            self.name, found.embeddings, texts=len(texts), model=found.model, prompt_tokens=found.prompt_eval_count
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    # --- its wire ---

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        if request.instruction:
            messages.append({"role": "system", "content": request.instruction})
        messages += [{"role": turn.role, "content": turn.text} for turn in request.history]
        asked_for: dict[str, Any] = {"role": "user", "content": request.prompt}
        if request.images:
            asked_for["images"] = [b64encode(image.content).decode() for image in request.images]
        messages.append(asked_for)
        body: dict[str, Any] = {"model": request.model or self.model, "messages": messages}
        generation = request.generation
        options = {
            wire_name: value for name, wire_name in OPTIONS.items() if (value := getattr(generation, name)) is not None
        }
        if options:
            body["options"] = options
        wanted = generation.response_format
        if wanted is not None and wanted.type != "text":
            body["format"] = wanted.json_schema.schema_ if wanted.json_schema is not None else "json"
        return body

    def _read(self, model: type[Any], body: bytes) -> Any:
        try:
            return model.model_validate_json(body)
        except ValidationError:
            raise senseless(self.name) from None


def make_ollama(*, base_url: str, model: str, embedding_model: str, connections: int) -> OllamaProvider:
    """The adapter; it needs no key."""
    client = make_http_client(base_url=base_url, connections=connections)
    return OllamaProvider(client, model=model, embedding_model=embedding_model)


def _completion(text: str, last: _Part, model: str) -> Completion:
    usage = None
    if last.prompt_eval_count is not None or last.eval_count is not None:
        prompt, answer = last.prompt_eval_count or 0, last.eval_count or 0  # a cached prompt is left out by it
        usage = Usage(prompt, answer, prompt + answer)
    return Completion(text, last.model or model, last.done_reason or "stop", usage)
