"""What the fields of requests and events are: texts that every store can hold, names, and their bounds."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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


def not_blank(value: str) -> str:
    """The text; ValueError where there is nothing in it."""
    if not value.strip():
        raise ValueError("must hold more than white space")
    return value


def _without_doubles(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise ValueError("must name each provider once")
    return value


def one_or_more(value: Any) -> Any:
    """One text stands for a list of it."""
    return (value,) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(without_unstorable)]
Prompt = Annotated[Text, Field(min_length=1, max_length=20_000), AfterValidator(not_blank)]
ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
ProviderNames = Annotated[tuple[ProviderName, ...], Field(min_length=1, max_length=6), AfterValidator(_without_doubles)]
UserId = Annotated[Text, Field(min_length=1, max_length=128, pattern=r"^[^\s/]+$")]
CallbackUrl = Annotated[Text, Field(min_length=8, max_length=2048, pattern=r"^https?://[^\s]+$")]
MetadataText = Annotated[Text, Field(max_length=512)]
MetadataName = Annotated[Text, Field(min_length=1, max_length=64)]
Metadata = Annotated[dict[MetadataName, MetadataText], Field(max_length=16)]
Timeout = Annotated[
    float, Field(strict=True, ge=1, le=120, description="Seconds of work, the provider's call included")
]
ModelName = Annotated[Text, Field(min_length=1, max_length=200)]
# As it stands in a path and in a file's name.
AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class RequestBody(BaseModel):
    """A body from outside: an unknown field is a mistake that its sender wants to hear of."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
