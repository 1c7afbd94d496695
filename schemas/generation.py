"""How an answer is to be generated, and what form it has to have."""

import json
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from schemas.request_fields import AdapterName, ProviderName, RequestBody, Text, one_or_more, without_unstorable

# Strict: "5" and true are no numbers, though pydantic would make some of them.
Temperature = Annotated[float, Field(strict=True, ge=0, le=2)]
TopP = Annotated[float, Field(strict=True, ge=0, le=1)]
MaxTokens = Annotated[int, Field(strict=True, ge=1, le=8192)]
TopK = Annotated[int, Field(strict=True, ge=1, le=1000)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Field(strict=True, ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(strict=True, gt=0, le=2)]
StopText = Annotated[Text, Field(min_length=1, max_length=100)]
Stop = Annotated[tuple[StopText, ...], BeforeValidator(one_or_more), Field(min_length=1, max_length=4)]
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
    adapter: AdapterName | None = Field(
        None, description="Which of your own adapters, with mode lora (GET /instruction/adapters)"
    )
    # None is true: an event without it can be read by workers that do not know it yet.
    strict: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="False: parameters that the provider has not are left out (meta.dropped); else refused"
    )
    simulate_failure: (
        Annotated[tuple[ProviderName, ...], BeforeValidator(one_or_more), Field(min_length=1, max_length=6)] | None
    ) = Field(None, description="For admins: these providers are not asked but fail, as if they could not be reached")

    @model_validator(mode="after")
    def _adapter_where_it_belongs(self) -> Self:
        if self.adapter is not None and self.mode != "lora":
            raise ValueError("adapter is given with mode lora only")
        return self

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
        fields = {name.partition(".")[0] for name in names}
        return self.model_copy(update=dict.fromkeys(fields | ({"adapter"} if "mode" in fields else set())))


# Those whose name says it all; `mode` and `response_format` depend on what is asked for.
PARAMETERS = (
    "temperature", "top_p", "max_tokens", "top_k", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty",
)  # fmt: skip
