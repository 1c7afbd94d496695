"""Completions and embeddings from any server with the OpenAI API, by the `openai` SDK."""

from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson
from aiohttp import ServerDisconnectedError
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, Omit, OpenAIError
from pydantic import ValidationError

from processors.ports import (
    MAX_TEXTS,
    Capabilities,
    Completion,
    CompletionRequest,
    EmbeddingPurpose,
    Embeddings,
    Usage,
)
from providers.failures import (
    broke_off,
    check_images,
    check_texts,
    refused,
    said_on_the_way,
    senseless,
    too_large,
    unreachable,
)
from providers.lines import Lines, sse_data
from providers.openai_client import CLOSING, HEADERS, OPTIONS
from providers.openai_replies import Chunk, EmbeddingReply, ErrorOnTheWay, Models, Reply
from providers.sdk_http import MAX_REPLY_BYTES, ReplyTooLargeError
from providers.telling import tell
from providers.vectors import embeddings
from schemas.generation import GenerationConfig

MODELS_TIMEOUT_S = 10.0
FILTERED = "content_filter"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server's API differs from the others'. `names`: our parameters -> what it calls them."""

    names: Mapping[str, str]
    response_formats: frozenset[str] = frozenset({"json_object", "json_schema"})
    max_images: int = 0

    def capabilities(self, *, embeds: bool) -> Capabilities:
        """What a server of this dialect can do."""
        formats = {f"response_format.{kind}" for kind in self.response_formats}
        return Capabilities(frozenset({*self.names, *formats}), max_images=self.max_images, embeds=embeds)


_NAMES = {name: name for name in (
    "temperature", "top_p", "max_tokens", "seed", "stop", "presence_penalty", "frequency_penalty",
)}  # fmt: skip
COMPATIBLE = Dialect(_NAMES, max_images=10)
OPENAI = Dialect({**_NAMES, "max_tokens": "max_completion_tokens"}, max_images=10)  # renamed by OpenAI alone


class OpenAICompatibleProvider:
    """See `CompletionProvider` and `EmbeddingProvider`."""

    def __init__(
        self,
        client: AsyncOpenAI,
        *,
        name: str,
        model: str,
        embedding_model: str | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        """What it asks.

        Args:
            client: From `openai_client.make_client`; its own retries are off, for `run_stage` decides.
            name: As in `ALLOWED_PROVIDERS`.
            model: For completions.
            embedding_model: For embeddings; None where there are none.
            dialect: Of the server; None: OpenAI's own if it is theirs, else the common one.
        """
        host = client.base_url.host
        is_openai = host == "openai.com" or host.endswith(".openai.com")
        self._client, self.name, self.model = client, name, model
        self._has_streamed, self._keeps_streams = False, True
        self._url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        self.embedding_model = embedding_model or ""
        self._dialect = dialect or (OPENAI if is_openai else COMPATIBLE)
        self.capabilities = self._dialect.capabilities(embeds=embedding_model is not None)

    # --- the ports ---

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        check_images(self.name, request, self.capabilities)
        async with self._failures(), self._reply(self._body(request), timeout_s=request.timeout_s + 1) as reply:
            body = b"".join([piece async for piece in reply.aiter_raw()])  # it was not packed: see `sdk_http`
        return self._parse(body)

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`."""
        check_images(self.name, request, self.capabilities)
        answer = _Answer(self.name, request.model or self.model)
        await tell(self._texts(request, answer), on_delta)
        return answer.whole()

    async def _texts(self, request: CompletionRequest, answer: "_Answer") -> AsyncGenerator[str, None]:
        body = self._body(request) | {"stream": True, "stream_options": {"include_usage": True}}
        lines = Lines()
        async with (
            self._failures(),
            self._reply(body, timeout_s=request.timeout_s + 1, streamed=True) as reply,
        ):
            self._has_streamed = True
            async for piece in reply.aiter_raw():
                for line in lines.feed(piece):
                    if (data := sse_data(line)) and (text := answer.take(data)):
                        yield text

    @asynccontextmanager
    async def _reply(
        self, body: Mapping[str, Any], *, timeout_s: float, streamed: bool = False
    ) -> AsyncIterator[httpx2.Response]:
        keeps = self._keeps_streams or not streamed
        try:
            reply = await self._post(body, timeout_s=timeout_s, headers=HEADERS if keeps else CLOSING)
        except APIConnectionError as error:
            # llama.cpp closes a connection behind each stream without a word before: this call has met it half closed.
            may_be = self._has_streamed and self._keeps_streams and self._client.base_url.scheme == "http"
            if not may_be or not _was_closed(error):
                raise
            self._keeps_streams = False  # to connect anew costs little where there is no TLS
            reply = await self._post(body, timeout_s=timeout_s, headers=CLOSING)
        try:
            yield reply
        finally:
            await reply.aclose()

    async def _post(
        self, body: Mapping[str, Any], *, timeout_s: float, headers: Mapping[str, str | Omit]
    ) -> httpx2.Response:
        # The SDK's own `create` looks at every argument that there could be, and joins the URL anew for each call:
        # a quarter of a call's CPU.
        options: Any = {**OPTIONS, "timeout": timeout_s, "headers": headers}
        return await self._client.post(self._url, content=orjson.dumps(body), cast_to=httpx2.Response, options=options)

    async def models(self) -> tuple[str, ...]:
        """See `CompletionProvider.models`."""
        async with (
            self._failures(),
            self._client.models.with_streaming_response.list(timeout=MODELS_TIMEOUT_S) as response,
        ):
            body = await response.read()
        return tuple(model.id for model in self._read(Models, body).data)

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:  # noqa: ARG002 these models make no difference
        """See `EmbeddingProvider.embed`."""
        return await self._embed(texts, timeout_s=timeout_s)

    def _embedder(self) -> AsyncOpenAI:
        """Who embeds: the same server, but for those that have two."""
        return self._client

    async def _embed(
        self, texts: Sequence[str], *, timeout_s: float, extra: Mapping[str, str] | None = None
    ) -> Embeddings:
        check_texts(texts, MAX_TEXTS)
        async with (
            self._failures(),
            self._embedder().embeddings.with_streaming_response.create(
                model=self.embedding_model,
                input=list(texts),
                encoding_format="float",
                timeout=timeout_s + 1,
                extra_body=extra,
            ) as response,
        ):
            body = await response.read()
        reply = self._read(EmbeddingReply, body)
        vectors = [vector.embedding for vector in sorted(reply.data, key=lambda vector: vector.index)]
        used = reply.usage.prompt_tokens if reply.usage else None
        return embeddings(self.name, vectors, texts=len(texts), model=reply.model, prompt_tokens=used)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    # --- its wire ---

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        if request.instruction:
            messages.append({"role": "system", "content": request.instruction})
        messages += [{"role": turn.role, "content": turn.text} for turn in request.history]
        content: Any = request.prompt
        if request.images:
            pictures = [
                {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{_base64(image.content)}"}}
                for image in request.images
            ]
            content = [{"type": "text", "text": request.prompt}, *pictures]
        messages.append({"role": "user", "content": content})
        model = request.model or self.model
        return {"model": model, "messages": messages, **self._parameters(request.generation)}

    def _parameters(self, generation: GenerationConfig) -> dict[str, Any]:
        body: dict[str, Any] = {}
        for name, wire_name in self._dialect.names.items():
            value = getattr(generation, name)
            if value is not None:
                body[wire_name] = value
        if generation.response_format is not None:
            body["response_format"] = generation.response_format.model_dump(exclude_none=True)
        return body

    def _parse(self, body: bytes) -> Completion:
        reply = self._read(Reply, body)
        if not reply.choices:
            raise senseless(self.name)
        choice = reply.choices[0]
        text, reason = choice.message.content or "", choice.finish_reason or "stop"
        if not text and choice.message.refusal:
            text, reason = choice.message.refusal, FILTERED
        return Completion(text, reply.model, reason, reply.usage.counted() if reply.usage else None)

    def _read(self, model: type[Any], body: bytes) -> Any:
        try:
            return model.model_validate_json(body)
        except ValidationError:
            raise senseless(self.name) from None

    @asynccontextmanager
    async def _failures(self) -> AsyncIterator[None]:
        try:
            yield
        except APIStatusError as error:
            said = (error.code, error.type, error.message, error.body)
            raise refused(self.name, error.status_code, error.response.headers, said=said) from None
        except ReplyTooLargeError:
            raise too_large(self.name, MAX_REPLY_BYTES) from None
        except APIConnectionError as error:
            if isinstance(error.__cause__, ReplyTooLargeError):
                raise too_large(self.name, MAX_REPLY_BYTES) from None
            raise unreachable(self.name) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError):
            raise unreachable(self.name) from None
        except OpenAIError:
            raise senseless(self.name) from None


class _Answer:
    """A streamed answer as it grows."""

    def __init__(self, provider: str, model: str) -> None:
        self._provider, self._model = provider, model
        self._parts: list[str] = []
        self._reason: str | None = None
        self._is_refused = False
        self._usage: Usage | None = None

    def take(self, data: bytes) -> str:
        """The text that an event brings, if any."""
        if data == b"[DONE]":
            return ""
        try:
            chunk = Chunk.model_validate_json(data)
        except ValidationError:
            raise senseless(self._provider) from None
        if chunk.error is not None:
            told = chunk.error if isinstance(chunk.error, ErrorOnTheWay) else ErrorOnTheWay()
            status = told.code if told.status is None else told.status
            raise said_on_the_way(self._provider, status, said=(told.code, told.type, told.message))
        self._model = chunk.model or self._model
        if chunk.usage is not None:
            self._usage = chunk.usage.counted()
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        text = choice.delta.content or choice.delta.refusal or ""
        if text:
            self._parts.append(text)
        if choice.delta.refusal:
            self._is_refused = True
        if choice.finish_reason is not None:
            self._reason = FILTERED if self._is_refused else choice.finish_reason
        return text

    def whole(self) -> Completion:
        """What is there at the end of the stream; RetryableError where it broke off before its own."""
        if self._reason is None:
            raise broke_off(self._provider)
        return Completion("".join(self._parts), self._model, self._reason, self._usage)


def _was_closed(error: BaseException | None) -> bool:
    """By the other side, before it said anything; the SDK calls that a timeout."""
    while error is not None and not isinstance(error, ServerDisconnectedError | ConnectionResetError):
        error = error.__cause__ or error.__context__
    return error is not None


def _base64(content: bytes) -> str:
    return b64encode(content).decode()
