"""Completions from any server with the OpenAI chat API, by the `openai` SDK (POST /v1/chat/completions)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2
import openai
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, DefaultAioHttpClient, OpenAIError
from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from processors.errors import PermanentError, RetryableError
from processors.ports import Completion, CompletionRequest, Usage
from processors.retries import is_passing_status
from providers.retry_after import retry_after_s

CONNECT_TIMEOUT_S = 5.0
MAX_REPLY_BYTES = 8 * 1024 * 1024
INVALID_REPLY = "provider-invalid-reply"


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


def _none_where_it_does_not_fit(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """The answer is paid for, whatever its server counts."""
    try:
        return parse(value)
    except ValidationError:
        return None


class _Reply(BaseModel):
    """Of the reply as much as we use; a mismatch is the server's fault."""

    model: str
    choices: list[_Choice]
    usage: Annotated[_Usage | None, WrapValidator(_none_where_it_does_not_fit)] = None

    def counted(self) -> Usage | None:
        """Tokens; servers that are compatible with OpenAI's may leave the total out."""
        usage = self.usage
        if usage is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
            return None  # not counted is not nothing
        asked, answered = usage.prompt_tokens or 0, usage.completion_tokens or 0
        return Usage(asked, answered, asked + answered if usage.total_tokens is None else usage.total_tokens)


class _ChunkChoice(BaseModel):
    delta: _Message = _Message()
    finish_reason: str | None = None


class _Chunk(_Reply):
    """One event of a stream: text, the reason of its end, or the usage."""

    model: str | None = None  # type: ignore[assignment]  # servers may leave it out here
    choices: list[_ChunkChoice] = []  # type: ignore[assignment]


class OpenAICompatibleProvider:
    """See `CompletionProvider`."""

    def __init__(self, client: AsyncOpenAI, *, name: str, model: str) -> None:
        """`client`: from `make_client`; its own retries are off, for `run_stage` decides."""
        self._client, self.name, self.model = client, name, model
        # OpenAI itself has renamed it; servers that are compatible with it know the older name.
        is_openai = client.base_url.host == "openai.com" or client.base_url.host.endswith(".openai.com")
        self._max_tokens = "max_completion_tokens" if is_openai else "max_tokens"

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        async with self._asked(request, self._body(request)) as response:
            return self._parse(await _read(response))

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`."""
        body = self._body(request) | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._asked(request, body) as response:
            if "event-stream" not in response.headers.get("content-type", ""):  # it does not know how to stream
                completion = self._parse(await _read(response))
                await on_delta(completion.text)
                return completion
            return await self._told(response, on_delta)

    @asynccontextmanager
    async def _asked(self, request: CompletionRequest, body: dict[str, Any]) -> AsyncIterator[Any]:
        try:
            # Streamed, so that a reply of any size is read only as far as we want it.
            async with self._client.chat.completions.with_streaming_response.create(
                # By extra_body: the SDK walks through every argument of its own, which costs a quarter of a call.
                model=self.model,
                messages=[],
                extra_body=body,
                timeout=request.timeout_s + 1,
            ) as response:
                yield response
        except openai.APITimeoutError as error:
            raise RetryableError("provider-unreachable", f"{self.name} did not answer in time") from error
        except APIStatusError as error:
            raise self._error_for(error) from error
        except (APIConnectionError, httpx2.HTTPError, OSError) as error:
            raise RetryableError("provider-unreachable", f"{self.name} cannot be reached") from error
        except OpenAIError as error:
            raise PermanentError(INVALID_REPLY, f"{self.name} sent a reply that makes no sense") from error

    async def _told(self, response: Any, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        texts: list[str] = []
        model, reason, usage, size, rest = self.model, None, None, 0, b""
        async for part in response.iter_bytes():
            size += len(part)
            if size > MAX_REPLY_BYTES:
                raise PermanentError(INVALID_REPLY, f"the reply is larger than {MAX_REPLY_BYTES} bytes")
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                data = line.removeprefix(b"data:").strip()
                if data == line.strip() or data == b"[DONE]":  # no data
                    continue
                try:
                    chunk = _Chunk.model_validate_json(data)
                except ValidationError:
                    raise PermanentError(INVALID_REPLY, f"{self.name} sent a reply that makes no sense") from None
                model, usage = chunk.model or model, chunk.counted() or usage
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        texts.append(choice.delta.content)
                        await on_delta(choice.delta.content)
        if reason is None:
            raise RetryableError("provider-unreachable", f"{self.name} broke off in the middle of its answer")
        return Completion("".join(texts), model, reason, usage)

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        messages: list[dict[str, str]] = []
        if request.instruction:
            messages.append({"role": "system", "content": request.instruction})
        messages.append({"role": "user", "content": request.prompt})
        generation = request.generation
        body: dict[str, Any] = {"messages": messages}
        if generation.temperature is not None:
            body["temperature"] = generation.temperature
        if generation.top_p is not None:
            body["top_p"] = generation.top_p
        if generation.max_tokens is not None:
            body[self._max_tokens] = generation.max_tokens
        return body

    def _parse(self, body: bytes) -> Completion:
        try:
            reply = _Reply.model_validate_json(body)
            choice = reply.choices[0]
        except (ValidationError, IndexError):
            raise PermanentError(INVALID_REPLY, f"{self.name} sent a reply that makes no sense") from None
        return Completion(
            text=choice.message.content or "",
            model=reply.model,
            finish_reason=choice.finish_reason or "stop",
            usage=reply.counted(),
        )

    def _error_for(self, error: APIStatusError) -> RetryableError | PermanentError:
        status = error.status_code
        code, message = f"provider-http-{status}", f"{self.name} answered with status {status}"
        if is_passing_status(status):
            return RetryableError(code, message, retry_after_s=retry_after_s(error.response.headers))
        return PermanentError(code, message)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


def make_client(*, base_url: str, api_key: str, connections: int) -> AsyncOpenAI:
    """A client for `OpenAICompatibleProvider`.

    Args:
        base_url: Ends in `/v1`.
        api_key: Sent as a bearer token.
        connections: How many at most; more callers wait.
    """
    on_this_machine = urlsplit(base_url).hostname in ("127.0.0.1", "::1", "localhost")
    # The aiohttp transport costs about half the CPU of the default one per call.
    http = DefaultAioHttpClient(
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        timeout=httpx2.Timeout(130.0, connect=CONNECT_TIMEOUT_S, pool=130.0),
        trust_env=not on_this_machine,
        follow_redirects=False,
    )
    return AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=http)


async def _read(response: Any) -> bytes:
    body = bytearray()
    async for part in response.iter_bytes():
        body += part
        if len(body) > MAX_REPLY_BYTES:
            raise PermanentError(INVALID_REPLY, f"the reply is larger than {MAX_REPLY_BYTES} bytes")
    return bytes(body)
