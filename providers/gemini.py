"""Completions and embeddings from Google's Gemini API, by the `google-genai` SDK."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from google.genai import Client, errors, types
from pydantic import BaseModel

from processors.errors import PermanentError, RetryableError
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
    senseless,
    too_large,
    unreachable,
)
from providers.sdk_http import MAX_REPLY_BYTES, ReplyTooLargeError, SdkClient, make_sdk_client, replies_closed
from providers.telling import tell
from providers.vectors import embeddings

NAME = "gemini"
MODELS_TIMEOUT_S = 10.0
MODELS_PAGE = 200
FILTERED = "content_filter"
ROLES = {"user": "user", "assistant": "model"}
# All others are the provider's own word, in small letters.
REASONS = {
    "STOP": "stop", "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "RECITATION", "MODEL_ARMOR"), FILTERED),
}  # fmt: skip
NAMES = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_tokens": "max_output_tokens",
    "seed": "seed", "stop": "stop_sequences", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}  # fmt: skip
TASKS = {"query": "RETRIEVAL_QUERY", "passage": "RETRIEVAL_DOCUMENT"}
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class _Detail(BaseModel):
    """How long to wait stands in the body of a 429. Source: google/rpc/error_details.proto, RetryInfo."""

    retryDelay: str = ""  # noqa: N815 theirs


class GeminiProvider:
    """See `CompletionProvider` and `EmbeddingProvider`."""

    capabilities = Capabilities(
        frozenset({*NAMES, "response_format.json_object", "response_format.json_schema"}), max_images=10, embeds=True
    )

    def __init__(self, client: Client, http: SdkClient, *, name: str = NAME, model: str, embedding_model: str) -> None:
        """`client`: of the SDK, that goes over `http`; see `make_gemini`."""
        self._client, self._http = client, http
        self.name, self.model, self.embedding_model = name, model, embedding_model

    # --- the ports ---

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `CompletionProvider.complete`."""
        check_images(self.name, request, self.capabilities)
        model, contents, config = request.model or self.model, _contents(request), _config(request)
        async with self._failures():
            reply = await self._client.aio.models.generate_content(model=model, contents=contents, config=config)
        answer = _Answer(model)
        answer.take(reply)
        return answer.whole(otherwise=senseless(self.name))

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """See `CompletionProvider.stream`."""
        check_images(self.name, request, self.capabilities)
        answer = _Answer(request.model or self.model)
        async with replies_closed():
            await tell(self._texts(request, answer), on_delta)
        return answer.whole(otherwise=broke_off(self.name))

    async def _texts(self, request: CompletionRequest, answer: "_Answer") -> AsyncGenerator[str, None]:
        model, contents, config = request.model or self.model, _contents(request), _config(request)
        async with self._failures():
            replies = await self._client.aio.models.generate_content_stream(
                model=model, contents=contents, config=config
            )
            async for reply in replies:
                if text := answer.take(reply):
                    yield text

    async def models(self) -> tuple[str, ...]:
        """See `CompletionProvider.models`."""
        options = types.HttpOptions(timeout=round(MODELS_TIMEOUT_S * 1000))
        async with self._failures():
            config = types.ListModelsConfig(page_size=MODELS_PAGE, http_options=options)
            page = (await self._client.aio.models.list(config=config)).page  # of the pages the first
        return tuple((model.name or "").removeprefix("models/") for model in page)

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        """See `EmbeddingProvider.embed`."""
        check_texts(texts, MAX_TEXTS)
        config = types.EmbedContentConfig(task_type=TASKS[purpose], http_options=_options(timeout_s))
        contents: list[Any] = [*texts]  # its type is another one where Pillow is installed
        async with self._failures():
            reply = await self._client.aio.models.embed_content(
                model=self.embedding_model, contents=contents, config=config
            )
        vectors = [found.values or [] for found in reply.embeddings or []]
        return embeddings(self.name, vectors, texts=len(texts), model=self.embedding_model, prompt_tokens=None)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()  # it was made here, so the SDK leaves it alone
        await self._client.aio.aclose()
        self._client.close()

    @asynccontextmanager
    async def _failures(self) -> AsyncIterator[None]:
        try:
            yield
        except errors.APIError as error:
            raise _refused(self.name, error) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError):
            raise unreachable(self.name) from None
        except ReplyTooLargeError:
            raise too_large(self.name, MAX_REPLY_BYTES) from None
        except (ValueError, TypeError, AttributeError, LookupError):  # as the SDK stumbles over what it did not expect
            raise senseless(self.name) from None


class _Answer:
    """An answer, whole or as it grows. Blocked prompts and blocked answers end as `content_filter`."""

    def __init__(self, model: str) -> None:
        self._model, self._parts, self._reason = model, list[str](), ""
        self._usage: Usage | None = None

    def take(self, reply: types.GenerateContentResponse) -> str:
        """The text that a piece of it brings; thoughts are none of it."""
        self._model = reply.model_version or self._model
        if reply.usage_metadata is not None:
            self._usage = _usage(reply.usage_metadata)
        if reply.prompt_feedback is not None and reply.prompt_feedback.block_reason is not None:
            self._reason = FILTERED
        if not reply.candidates:
            return ""
        candidate = reply.candidates[0]
        if candidate.finish_reason is not None:
            said = candidate.finish_reason.value
            self._reason = REASONS.get(said, said.lower())
        parts = (candidate.content.parts if candidate.content else None) or []
        text = "".join(part.text for part in parts if part.text and not part.thought)
        if text:
            self._parts.append(text)
        return text

    def whole(self, *, otherwise: Exception) -> Completion:
        """What is there at its end; raises `otherwise` where that was never said."""
        if not self._reason:
            raise otherwise
        return Completion("".join(self._parts), self._model, self._reason, self._usage)


def make_gemini(*, base_url: str, api_key: str, model: str, embedding_model: str, connections: int) -> GeminiProvider:
    """The adapter.

    Args:
        base_url: Without the API's version.
        api_key: Sent as `x-goog-api-key`.
        model: For completions.
        embedding_model: For embeddings.
        connections: How many at most; more callers wait.
    """
    http = make_sdk_client(base_url=base_url, connections=connections, trust_env=True)
    # Without retry_options it does not retry, for `run_stage` decides.
    options = types.HttpOptions(base_url=base_url, httpx_async_client=http)
    client = Client(vertexai=False, api_key=api_key, http_options=options)
    return GeminiProvider(client, http, model=model, embedding_model=embedding_model)


def _options(timeout_s: float) -> types.HttpOptions:
    return types.HttpOptions(timeout=round((timeout_s + 1) * 1000))


def _contents(request: CompletionRequest) -> list[types.Content]:
    said = [
        types.Content(role=ROLES[turn.role], parts=[types.Part.from_text(text=turn.text)]) for turn in request.history
    ]
    pictures = [types.Part.from_bytes(data=image.content, mime_type=image.media_type) for image in request.images]
    return [*said, types.Content(role="user", parts=[*pictures, types.Part.from_text(text=request.prompt)])]


def _config(request: CompletionRequest) -> types.GenerateContentConfig:
    generation = request.generation
    given: dict[str, Any] = {
        wire_name: value for name, wire_name in NAMES.items() if (value := getattr(generation, name)) is not None
    }
    if generation.stop is not None:
        given["stop_sequences"] = list(generation.stop)
    wanted = generation.response_format
    if wanted is not None and wanted.type != "text":
        given["response_mime_type"] = "application/json"
    if wanted is not None and wanted.json_schema is not None:
        given["response_json_schema"] = wanted.json_schema.schema_
    return types.GenerateContentConfig(
        system_instruction=request.instruction or None,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
        http_options=_options(request.timeout_s),
        **given,
    )


def _usage(told: types.GenerateContentResponseUsageMetadata) -> Usage | None:
    if told.prompt_token_count is None and told.candidates_token_count is None:
        return None
    asked = told.prompt_token_count or 0
    answered = (told.candidates_token_count or 0) + (told.thoughts_token_count or 0)
    return Usage(asked, answered, asked + answered if told.total_token_count is None else told.total_token_count)


def _refused(name: str, error: errors.APIError) -> RetryableError | PermanentError:
    if not isinstance(error.code, int):
        return broke_off(name)
    headers = getattr(error.response, "headers", None)
    return refused(name, error.code, headers, wait_s=_wait_s(error.details), said=(error.message,))


def _wait_s(details: Any) -> float | None:
    told = details.get("error", details) if isinstance(details, dict) else {}
    for detail in told.get("details") or () if isinstance(told, dict) else ():
        if isinstance(detail, dict) and detail.get("@type") == RETRY_INFO:
            try:
                seconds = float(_Detail.model_validate(detail).retryDelay.removesuffix("s"))
            except ValueError:
                continue
            return seconds if 0 <= seconds < float("inf") else None
    return None
