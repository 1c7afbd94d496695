"""What a client may ask for: the bodies of the REST calls, which are also `request` in `job-requested`."""

import json
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

JobKind = Literal["chat", "embedding", "rag", "search", "document", "agent", "smart", "speech", "example"]
Role = Literal["admin", "user"]


def without_unstorable(value: Any) -> Any:
    """Drop U+0000 and lone surrogates: Postgres and UTF-8 refuse them."""
    if not isinstance(value, str):
        return value
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # surrogates: a pair of them is a character, one alone is nothing
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return value.replace("\x00", "") if "\x00" in value else value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must hold more than white space")
    return value


def _without_doubles(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("must name each provider once")
    return value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(without_unstorable)]
Prompt = Annotated[Text, Field(min_length=1, max_length=20_000), AfterValidator(_not_blank)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
ProviderNames = Annotated[tuple[ProviderName, ...], Field(min_length=1, max_length=6), AfterValidator(_without_doubles)]
UserId = Annotated[Text, Field(min_length=1, max_length=128, pattern=r"^[^\s/]+$")]
CallbackUrl = Annotated[Text, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\s]+$")]
MetadataText = Annotated[Text, Field(max_length=512)]
MetadataName = Annotated[Text, Field(min_length=1, max_length=64)]
Metadata = Annotated[dict[MetadataName, MetadataText], Field(max_length=16)]


class RequestBody(BaseModel):
    """A body from outside: an unknown field is a mistake that its sender wants to hear of."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


# Strict: "5" and true are no numbers, though pydantic would make some of them.
Temperature = Annotated[float, Field(strict=True, ge=0, le=2)]
TopP = Annotated[float, Field(strict=True, ge=0, le=1)]
MaxTokens = Annotated[int, Field(strict=True, ge=1, le=8192)]
TopK = Annotated[int, Field(strict=True, ge=1, le=1000)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Field(strict=True, ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(strict=True, gt=0, le=2)]
StopText = Annotated[Text, Field(min_length=1, max_length=100)]
Stop = Annotated[tuple[StopText, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=4)]
Timeout = Annotated[
    float, Field(strict=True, ge=1, le=120, description="Seconds of work, the provider's call included")
]
ModelName = Annotated[Text, Field(min_length=1, max_length=200)]
MAX_JSON_SCHEMA_CHARS, MAX_JSON_DEPTH = 20_000, 50
LARGEST_INT = 2**53  # what every reader of JSON holds exactly


def _is_storable(value: Any, depth: int = 0) -> bool:
    """True for JSON that Postgres, Kafka and every provider's parser can hold."""
    if depth > MAX_JSON_DEPTH:
        return False
    if isinstance(value, dict):
        return all(_is_storable(part, depth + 1) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return all(_is_storable(part, depth + 1) for part in value)
    if isinstance(value, str):
        return bool(without_unstorable(value) == value)
    if isinstance(value, (int, float)):
        return -LARGEST_INT <= value <= LARGEST_INT  # neither NaN nor infinity is
    return value is None


class JsonSchemaFormat(RequestBody):
    """A JSON schema that the answer has to follow, as OpenAI's API has it."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] = "answer"
    description: Annotated[Text, Field(max_length=1000)] | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: Annotated[bool, Field(strict=True)] | None = None

    @field_validator("schema_")
    @classmethod
    def _bounded(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not _is_storable(value) or len(json.dumps(value, ensure_ascii=False)) > MAX_JSON_SCHEMA_CHARS:
            raise ValueError(
                f"must be at most {MAX_JSON_SCHEMA_CHARS} characters of JSON, {MAX_JSON_DEPTH} levels deep, without "
                "U+0000 and without numbers that JSON has no room for"
            )
        return value


class ResponseFormat(RequestBody):
    """What the answer has to be: any text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given exactly where type is json_schema")
        return self


class GenerationConfig(RequestBody):
    """How to generate; a field that is not given is left to the provider.

    Not every provider has every parameter: one that it has not is refused with its name, or left out with a note in
    the answer's `meta` where `strict` is false.
    """

    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    stop: Stop | None = Field(None, description="Texts before which the answer ends; one may stand without a list")
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    response_format: ResponseFormat | None = None
    mode: Literal["base", "lora"] | None = Field(None, description="Answer with the trained adapter, or without")
    # None is true: an event without it can be read by workers that do not know it yet.
    strict: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="False: parameters that the provider has not are left out (meta.dropped); else refused"
    )
    simulate_failure: (
        Annotated[tuple[ProviderName, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=6)] | None
    ) = Field(None, description="For admins: these providers are not asked but fail, as if they could not be reached")

    def named(self) -> tuple[str, ...]:
        """The parameters that are asked for, by the names that providers list theirs with."""
        given = [name for name in PARAMETERS if getattr(self, name) is not None]
        if self.mode == "lora":
            given.append("mode")
        if self.response_format is not None and self.response_format.type != "text":
            given.append(f"response_format.{self.response_format.type}")
        return tuple(given)

    def schema_text(self) -> str:
        """All that a model reads of the format that its answer has to have; empty where it is free."""
        wanted = self.response_format.json_schema if self.response_format is not None else None
        return wanted.model_dump_json(exclude_none=True) if wanted is not None else ""

    def without(self, names: Collection[str]) -> Self:
        """The same without some of its parameters, named as `named` does."""
        return self.model_copy(update={name.partition(".")[0]: None for name in names})


# Those whose name says it all; `mode` and `response_format` depend on what is asked for.
PARAMETERS = (
    "temperature", "top_p", "max_tokens", "top_k", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty",
)  # fmt: skip


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
SourceName = Annotated[Text, Field(min_length=1, max_length=MAX_SOURCE_CHARS), AfterValidator(_not_blank)]
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

    instruction: Annotated[Text, Field(min_length=1, max_length=5000), AfterValidator(_not_blank)]
    input: Annotated[Text, Field(max_length=20_000)] = ""
    output: Annotated[Text, Field(min_length=1, max_length=20_000), AfterValidator(_not_blank)]
    timeout: None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """Nobody is asked."""
        return ()


REQUESTS: dict[str, type[RequestBody]] = {
    "chat": ChatRequest, "embedding": EmbeddingRequest, "rag": RagRequest, "search": SearchRequest,
    "document": DocumentRequest, "agent": AgentRequest, "smart": SmartRequest, "speech": SpeechRequest,
    "example": ExampleRequest,
}  # fmt: skip
_KINDS = {one: kind for kind, one in REQUESTS.items()}
# Fields that no other kind's request has, and after them those that decide where none of these is given.
_TELLING = {
    "texts": "embedding", "question": "rag", "document": "document", "goal": "agent", "output": "example",
    "speaker": "speech", "language": "speech", "instruct": "speech", "agent_id": "smart",
    "top_k": "search", "mode": "search", "among": "search",
}  # fmt: skip


def kind_of(request: RequestBody) -> JobKind:
    """The kind of job whose request this is."""
    found = _KINDS.get(type(request)) or next(kind for kind, one in REQUESTS.items() if isinstance(request, one))
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
    | Annotated[ExampleRequest, Tag("example")],
    Discriminator(_which),
]
