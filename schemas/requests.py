"""What a client may ask for: the bodies of the REST calls, which are also `request` in `job-requested`."""

from functools import lru_cache
from typing import Annotated, Any, Literal, Self, cast
from uuid import UUID

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from schemas.generation import GenerationConfig
from schemas.request_fields import (
    AdapterName,
    ModelName,
    Prompt,
    ProviderName,
    ProviderNames,
    RequestBody,
    Text,
    Timeout,
    not_blank,
)

JobKind = Literal["chat", "embedding", "rag", "search", "document", "agent", "smart", "speech", "example", "training"]
ImageType = Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
MAX_IMAGE_BYTES = 10 * 1024 * 1024


class ImageReference(RequestBody):
    """An image in the payload store, as `POST /payloads` answers it.

    Only the id counts, and only where the payload is the user's own; the rest tells readers of the topics what it is.
    """

    payload_id: UUID
    media_type: ImageType | None = None
    size: Annotated[int, Field(strict=True, ge=1, le=MAX_IMAGE_BYTES, description="bytes")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


MAX_TURNS, MAX_HISTORY_CHARS = 200, 100_000  # with the rest of a request they fit into a record


class Turn(RequestBody):
    """What was said before the prompt, by its user or by the assistant."""

    role: Literal["user", "assistant"]
    text: Annotated[Text, Field(min_length=1, max_length=MAX_HISTORY_CHARS)]


class ChatRequest(RequestBody):
    """Body of `POST /chat/` and `request` of a job of kind `chat`."""

    prompt: Prompt
    provider: Annotated[
        ProviderName | ProviderNames | None,
        Field(description="Who answers; of several, the next is asked where the one before fails"),
    ] = None
    model: ModelName | None = Field(
        None, description="One of the provider's, which is named beside it; else its own choice"
    )
    # None where there is nothing: an event without it can be read by workers that do not know it yet.
    history: Annotated[tuple[Turn, ...], Field(min_length=1, max_length=MAX_TURNS)] | None = Field(
        None, description="Of a conversation what was said before the prompt, oldest first"
    )
    instruction: Annotated[Text, Field(max_length=5000)] | None = None
    generation_config: GenerationConfig = GenerationConfig()
    timeout: Timeout | None = None
    # None where there is none, as above.
    image: ImageReference | None = Field(None, description="For providers that see (GET /providers)")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.model is not None and len(self.providers) != 1:
            raise ValueError("model is one of a provider's: name that one provider, too")
        if self.generation_config.adapter is not None and len(self.providers) > 1:
            raise ValueError("an adapter is one provider's: name that one, or none")
        if self.history is not None and sum(len(turn.text) for turn in self.history) > MAX_HISTORY_CHARS:
            raise ValueError(f"history is at most {MAX_HISTORY_CHARS} characters in all")
        return self

    @property
    def providers(self) -> tuple[str, ...]:
        """Those asked for, in order; empty where the choice is left to us."""
        return (self.provider,) if isinstance(self.provider, str) else self.provider or ()

    def providers_after(self, provider: str) -> tuple[str, ...]:
        """Those that may still be asked when this one has failed."""
        if not isinstance(self.provider, tuple) or provider not in self.provider:
            return ()
        return self.provider[self.provider.index(provider) + 1 :]


# With 4,096 numbers each, as base64 of float32, their vectors fit into a record.
MAX_EMBEDDED_TEXTS, MAX_EMBEDDED_CHARS = 40, 200_000


class EmbeddingRequest(RequestBody):
    """`request` of a job of kind `embedding`: a vector for each text, which is taken as it is, in their order."""

    texts: Annotated[
        tuple[Annotated[Text, Field(min_length=1, max_length=MAX_EMBEDDED_CHARS)], ...],
        Field(min_length=1, max_length=MAX_EMBEDDED_TEXTS),
    ]
    provider: ProviderName | None = None
    timeout: Timeout | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if sum(map(len, self.texts)) > MAX_EMBEDDED_CHARS:
            raise ValueError(f"texts are at most {MAX_EMBEDDED_CHARS} characters in all")
        return self

    @property
    def providers(self) -> tuple[str, ...]:
        """As `ChatRequest.providers`; one at most, for the vectors of two do not go together."""
        return (self.provider,) if self.provider else ()


MAX_SOURCE_CHARS, MAX_TOP_K, MAX_FILTERS = 512, 20, 100
SourceName = Annotated[Text, Field(min_length=1, max_length=MAX_SOURCE_CHARS), AfterValidator(not_blank)]
ResultCount = Annotated[int, Field(strict=True, ge=1, le=MAX_TOP_K)]


class DocumentReference(RequestBody):
    """A file in the payload store, as `POST /payloads` answers it.

    Only the id counts, and only where the payload is the user's own; the rest tells readers of the topics what it is.
    """

    payload_id: UUID
    size: Annotated[int, Field(strict=True, ge=0, description="bytes")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class DocumentRequest(RequestBody):
    """`request` of a job of kind `document`: a file that is to be found and quoted from then on.

    `source`: what the user calls it; the same name again is a newer version of the same document. `provider`: who
    makes its vectors.
    """

    document: DocumentReference
    source: SourceName
    provider: ProviderName | None = None
    timeout: (
        Annotated[float, Field(strict=True, ge=1, le=86_400, description="Seconds that the job is good for")] | None
    ) = None

    @property
    def providers(self) -> tuple[str, ...]:
        """As `EmbeddingRequest.providers`."""
        return (self.provider,) if self.provider else ()


class Among(RequestBody):
    """Which of the user's documents are looked through: those of any of these names or ids; None: all of them."""

    sources: Annotated[tuple[SourceName, ...], Field(min_length=1, max_length=MAX_FILTERS)] | None = None
    documents: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=MAX_FILTERS)] | None = None


SearchMode = Literal["hybrid", "dense", "keyword"]


class SearchRequest(RequestBody):
    """`request` of a job of kind `search`: passages of the user's documents that fit the query, best first."""

    query: Prompt
    top_k: ResultCount = 5
    provider: Annotated[ProviderName | None, Field(description="Who makes the query's vector")] = None
    mode: SearchMode = "hybrid"
    among: Among | None = None
    timeout: Timeout | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """As `EmbeddingRequest.providers`."""
        return (self.provider,) if self.provider else ()


class RagRequest(RequestBody):
    """Body of `POST /chat/rag` and `request` of a job of kind `rag`: a question to the user's documents."""

    question: Prompt
    embedding_provider: Annotated[
        ProviderName | None, Field(description="Who makes the question's vector: the one that made the documents'")
    ] = None
    llm_provider: Annotated[ProviderName | None, Field(description="Who answers")] = None
    top_k: ResultCount = 5
    among: Among | None = None
    generation_config: GenerationConfig = GenerationConfig()
    rerank_provider: Annotated[
        ProviderName | None, Field(description="Asked to put what was found in order before it is answered from")
    ] = None
    timeout: Timeout | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """Those that answer, as `ChatRequest.providers`."""
        return (self.llm_provider,) if self.llm_provider else ()


AgentId = Annotated[Text, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:-]+$")]


class AgentRequest(RequestBody):
    """Body of `POST /agents/run` and `request` of a job of kind `agent`: a goal that takes several steps.

    `agent_id`: whose memory it has, among the user's agents; `timeout`: of one call to the provider.
    """

    goal: Prompt
    agent_id: AgentId
    agent_type: Literal["react"] = "react"
    max_steps: Annotated[int, Field(strict=True, ge=1, le=20)] = 3
    provider: ProviderName | None = None
    generation_config: GenerationConfig = GenerationConfig()
    timeout: Timeout | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """As `ChatRequest.providers`."""
        return (self.provider,) if self.provider else ()


class SmartRequest(RequestBody):
    """Body of `POST /chat/smart/run` and `request` of a job of kind `smart`: one answer, or an agent, as it needs."""

    query: Prompt
    provider: ProviderName | None = None
    generation_config: GenerationConfig = GenerationConfig()
    agent_id: AgentId | None = None
    timeout: Timeout | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """As `ChatRequest.providers`."""
        return (self.provider,) if self.provider else ()


VoiceName = Annotated[Text, Field(min_length=1, max_length=100)]


class SpeechRequest(RequestBody):
    """Body of `POST /tts/` and `request` of a job of kind `speech`: a text that is to be heard."""

    prompt: Prompt
    speaker: VoiceName = "Vivian"
    language: VoiceName = "Auto"
    instruct: Annotated[Text, Field(max_length=1000, description="How it is to be said")] | None = None
    provider: ProviderName | None = None
    timeout: Timeout | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """As `ChatRequest.providers`; of those that speak."""
        return (self.provider,) if self.provider else ()


class ExampleRequest(RequestBody):
    """Body of `POST /instruction/smart/add` and `request` of a job of kind `example`: one to learn from."""

    instruction: Annotated[Text, Field(min_length=1, max_length=5000), AfterValidator(not_blank)]
    input: Annotated[Text, Field(max_length=20_000)] = ""
    output: Annotated[Text, Field(min_length=1, max_length=20_000), AfterValidator(not_blank)]
    timeout: None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """Nobody is asked."""
        return ()


Epochs = Annotated[int, Field(strict=True, ge=1, le=20)]
LearningRate = Annotated[float, Field(strict=True, ge=1e-6, le=1e-2)]
BatchSize = Annotated[int, Field(strict=True, ge=1, le=32)]


class TrainingRequest(RequestBody):
    """Body of `POST /instruction/train` and `request` of a job of kind `training`: an adapter is to be learnt.

    It learns from the user's own examples; `name`: what the user calls it from then on.
    """

    name: AdapterName
    epochs: Epochs = 3
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 4
    provider: Annotated[ProviderName | None, Field(description="Whose model learns")] = None
    timeout: (
        Annotated[float, Field(strict=True, ge=1, le=86_400, description="Seconds that the job is good for")] | None
    ) = None

    @property
    def providers(self) -> tuple[str, ...]:
        """As `ChatRequest.providers`; of those that train."""
        return (self.provider,) if self.provider else ()


REQUESTS: dict[str, type[RequestBody]] = {
    "chat": ChatRequest, "embedding": EmbeddingRequest, "rag": RagRequest, "search": SearchRequest,
    "document": DocumentRequest, "agent": AgentRequest, "smart": SmartRequest, "speech": SpeechRequest,
    "example": ExampleRequest, "training": TrainingRequest,
}  # fmt: skip
# Fields that no other kind's request has, and after them those that decide where none of these is given.
_TELLING = {
    "texts": "embedding", "question": "rag", "document": "document", "goal": "agent", "output": "example",
    "name": "training",
    "speaker": "speech", "language": "speech", "instruct": "speech", "agent_id": "smart",
    "top_k": "search", "mode": "search", "among": "search",
}  # fmt: skip


def kind_of(request: RequestBody) -> JobKind:
    """The kind of job whose request this is."""
    return _kind_of_class(type(request))


@lru_cache(maxsize=64)  # asked several times for each event, also by pydantic
def _kind_of_class(request: type[RequestBody]) -> JobKind:
    found: Any = next(kind for kind, one in REQUESTS.items() if issubclass(request, one))
    return cast(JobKind, found)


def as_kind(kind: JobKind, request: RequestBody) -> RequestBody:
    """The request as that of its job: some kinds' requests look alike where they leave most fields out.

    Raises:
        ValueError: It is none of that kind.
    """
    wanted = REQUESTS[kind]
    if isinstance(request, wanted):
        return request
    if type(request) not in (ChatRequest, SearchRequest) or kind not in ("speech", "smart"):
        raise ValueError(f"this is no request of a job of kind {kind}")
    return wanted.model_validate(request.model_dump(exclude_unset=True))


def _which(request: Any) -> str:
    if isinstance(request, RequestBody):
        return kind_of(request)
    names = request if isinstance(request, dict) else {}
    if not _TELLING.keys().isdisjoint(names):  # of most there is none
        return next(kind for name, kind in _TELLING.items() if name in names)
    if "query" in names:
        return "smart" if "generation_config" in names else "search"
    return "chat"


AnyRequest = Annotated[
    Annotated[ChatRequest, Tag("chat")]
    | Annotated[EmbeddingRequest, Tag("embedding")]
    | Annotated[RagRequest, Tag("rag")]
    | Annotated[SearchRequest, Tag("search")]
    | Annotated[DocumentRequest, Tag("document")]
    | Annotated[AgentRequest, Tag("agent")]
    | Annotated[SmartRequest, Tag("smart")]
    | Annotated[SpeechRequest, Tag("speech")]
    | Annotated[ExampleRequest, Tag("example")]
    | Annotated[TrainingRequest, Tag("training")],
    Discriminator(_which),
]
