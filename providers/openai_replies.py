"""What servers with OpenAI's API say: of their replies as much as we use. A mismatch is the server's fault."""

from typing import Annotated, Any

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from processors.ports import Usage


def none_where_it_does_not_fit(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """The answer is paid for, whatever its server counts."""
    try:
        return parse(value)
    except ValidationError:
        return None


class Message(BaseModel):
    """What was said, or why not."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One answer."""

    message: Message
    finish_reason: str | None = None


class Counts(BaseModel):
    """Tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    def counted(self) -> Usage | None:
        """Tokens; servers that are compatible with OpenAI's may leave the total out."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None  # not counted is not nothing
        asked, answered = self.prompt_tokens or 0, self.completion_tokens or 0
        return Usage(asked, answered, asked + answered if self.total_tokens is None else self.total_tokens)


Counted = Annotated[Counts | None, WrapValidator(none_where_it_does_not_fit)]


class Reply(BaseModel):
    """Of the reply as much as we use; a mismatch is the server's fault."""

    model: str
    choices: list[Choice]
    usage: Counted = None


class ErrorOnTheWay(BaseModel):
    """An error where a piece should be."""

    code: Any = None
    status: Any = None
    type: Any = None
    message: Any = None


class ChunkChoice(BaseModel):
    """A piece of one answer."""

    delta: Message = Message()
    finish_reason: str | None = None


class Chunk(BaseModel):
    """One event of a stream; the last with choices has the finish reason, one after it may have the usage."""

    model: str | None = None
    choices: list[ChunkChoice] = []
    usage: Counted = None
    error: ErrorOnTheWay | str | None = None


class Vector(BaseModel):
    """Of the text at `index`."""

    index: int
    embedding: list[float]


class EmbeddingReply(BaseModel):
    """A vector for each text."""

    model: str
    data: list[Vector]
    usage: Counted = None


class ListedModel(BaseModel):
    """One that the server has."""

    id: str


class Models(BaseModel):
    """All of them."""

    data: list[ListedModel]
