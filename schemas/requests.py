"""What a client may ask for: the bodies of the REST calls, which are also `request` in `job-requested`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

JobKind = Literal["chat"]
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


Text = Annotated[str, BeforeValidator(without_unstorable)]
Prompt = Annotated[Text, Field(min_length=1, max_length=20_000), AfterValidator(_not_blank)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
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


class GenerationConfig(RequestBody):
    """How to generate; a field that is not given is left to the provider."""

    temperature: Temperature | None = None
    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=8192)] | None = None


class ChatRequest(RequestBody):
    """Body of `POST /chat/` and `request` of a job of kind `chat`."""

    prompt: Prompt
    provider: ProviderName | None = None
    instruction: Annotated[Text, Field(max_length=5000)] | None = None
    generation_config: GenerationConfig = GenerationConfig()
    timeout: (
        Annotated[float, Field(strict=True, ge=1, le=120, description="Seconds of work, the provider's call included")]
        | None
    ) = None
