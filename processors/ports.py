"""What stages need from outside, as Protocols; the adapters are in `providers/` and `streams/`."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, Self
from uuid import UUID

from schemas.envelope import Record
from schemas.events import Attempt, Job, StreamedRange
from schemas.generation import GenerationConfig
from schemas.requests import ImageReference, Turn

MAX_TEXTS = 64  # with 3,072 numbers each, written out widely, they stay within what is read of one reply
EmbeddingPurpose = Literal["query", "passage"]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that belongs to a prompt; `media_type` is what its content is, such as `image/png`."""

    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One prompt for one provider.

    `timeout_s` is what is left for the call when it begins; `model` is another one than the provider's own; `history`
    is what was said before the prompt, oldest first; `adapter_id` is of the trained adapter that answers.
    """

    job_id: UUID
    prompt: str
    instruction: str | None
    generation: GenerationConfig
    timeout_s: float
    images: tuple[Image, ...] = ()
    model: str | None = None
    history: tuple[Turn, ...] = ()
    adapter_id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A provider's answer. `finish_reason`: `stop`, `length`, `content_filter` or the provider's own word."""

    text: str
    model: str
    finish_reason: str
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do.

    `parameters`: names as `GenerationConfig.named` gives them; `max_images`: in one prompt, 0 where it cannot see;
    `streams`: its answer comes piece by piece, and not as one piece at its end.
    """

    parameters: frozenset[str]
    streams: bool = True
    max_images: int = 0
    embeds: bool = False


class CompletionProvider(Protocol):
    """Answers a prompt.

    Each of its calls raises:
        RetryableError: Unreachable, broken off, 408, 409, 429 or 5xx, with `retry_after_s` where the provider said it.
        PermanentError: It refused, its reply makes no sense, or it cannot do what was asked for.
    Being cancelled closes the connection to the provider. No reply is read further than its bound.
    """

    @property
    def name(self) -> str:
        """As in `ALLOWED_PROVIDERS`."""
        ...

    @property
    def model(self) -> str:
        """The model it asks."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    async def complete(self, request: CompletionRequest) -> Completion:
        """Ask for the whole answer."""
        ...

    async def stream(self, request: CompletionRequest, on_delta: Callable[[str], Awaitable[None]]) -> Completion:
        """The same, telling each piece of text as it comes; what is returned is the whole.

        No more is read while `on_delta` is awaited. Where it raises, what was told before is void.
        """
        ...

    async def models(self) -> tuple[str, ...]:
        """The models that it has now; costs nothing, so it also tells whether the provider is well."""
        ...


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each text, in their order and all of one length."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    prompt_tokens: int | None


class EmbeddingProvider(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """As in `ALLOWED_PROVIDERS`."""
        ...

    @property
    def embedding_model(self) -> str:
        """The model it asks."""
        ...

    async def embed(self, texts: Sequence[str], *, purpose: EmbeddingPurpose, timeout_s: float) -> Embeddings:
        """Embed up to `MAX_TEXTS` texts at once; `purpose` matters to models that tell questions from passages.

        Raises as `CompletionProvider`; ValueError for no texts, or too many.
        """
        ...


class Execution(Protocol):
    """One try at an answer. What it told is void unless `end` said where it is; leave it as a context manager."""

    @property
    def has_begun(self) -> bool:
        """True once any text of it has come."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    async def tell(self, text: str) -> None:
        """The next piece; returns at once."""
        ...

    async def end(self, text: str) -> StreamedRange | None:
        """The whole answer is this; where it was told, if it was worth that and all of it is."""
        ...


class Guard(Protocol):
    """Keeps calls away from a provider that fails, and hears how each went."""

    def calling(self, execution: Execution) -> AbstractContextManager[None]:
        """Around one call.

        Raises:
            RetryableError: `breaker-open`.
        """
        ...


class DeltaWriter(Protocol):
    """Tells answers piece by piece, as they come."""

    def execution(self, job: Job, *, max_chars: int) -> Execution:
        """Begin one; no more than `max_chars` of it are told."""
        ...


class PromptClassifier(Protocol):
    """A model that tells attacks from prompts."""

    async def score(self, text: str) -> float:
        """How surely it is an attack, 0-1.

        Raises:
            RetryableError, PermanentError: It cannot be had.
        """
        ...


class ImageReader(Protocol):
    """Fetches images from where they were kept before their job was published."""

    def held(self, reference: ImageReference, *, user_id: str) -> AbstractAsyncContextManager[Image | None]:
        """The image for as long as it is needed; None where there is none, or it is somebody else's.

        What is held at once is bounded, so it may wait for others to be done.

        Raises:
            RetryableError: The store is away.
            PermanentError: Here is no store.
        """
        ...


@dataclass(frozen=True, slots=True)
class DueEvent:
    """A job's event that is to be published at `due_at`.

    `due_id` is the record's `ce_id`; `stage`, `code` and `attempts` tell who waits, and for what.
    """

    due_id: str
    job_id: UUID
    run: int
    stage: str
    code: str
    attempts: tuple[Attempt, ...]
    record: Record
    due_at: datetime


class DueWriter(Protocol):
    """Keeps events that are due later. The releaser publishes them."""

    async def add(self, event: DueEvent) -> None:
        """Return once it is committed; the same one may be added again.

        Raises:
            RetryableError: The target is away.
            PermanentError: It will never take this one.
        """
        ...
