"""What OpenAI's clients send, and the job's request that it means.

A conversation travels as it is: the last turn is the prompt, those before it are its `history`, and each adapter
writes them as its API has turns. (The other way was one prompt with roles written into it: models answer such a text
worse, and whoever writes "Assistant:" into theirs speaks in its name.) All system and developer messages together are
the instruction, wherever they stand: it is the one place that every provider has for them. The gate cleans every turn,
judges all of them as one text, for a client may make up what the assistant has said, and MAX_PROMPT_LENGTH counts all.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ingress.http.problems import Problem, invalid_body
from ingress.openai_api.images import image_of, stands_for_one
from ingress.openai_api.model_names import Model
from processors.completion.fit_generation import UNSUPPORTED
from schemas.generation import (
    GenerationConfig,
    MaxTokens,
    Penalty,
    RepetitionPenalty,
    ResponseFormat,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
)
from schemas.request_fields import MetadataName, MetadataText, ModelName, RequestBody, Text, Timeout
from schemas.requests import MAX_TURNS, ChatRequest, Turn

MAX_MESSAGES = 500
ROLES = {"system", "developer", "user", "assistant"}
# What asks for nothing that would not come anyway.
NEUTRAL: dict[str, Any] = {
    "n": 1, "logprobs": False, "store": False, "logit_bias": {}, "tools": [], "functions": [], "modalities": ["text"],
    "service_tier": "auto",
}  # fmt: skip
WHY_NOT = {
    "n": "a request has one answer: leave n out",
    "tools": "tools are not offered here: leave tools out",
    "functions": "functions are not offered here: leave functions out",
    "tool_choice": "tools are not offered here: leave tool_choice out",
}
MESSAGES_SCHEMA = {
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        },
    },
    "examples": [[{"role": "user", "content": "Why is the sky blue?"}]],
}


def _without_what_asks_for_nothing(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        name: given
        for name, given in value.items()
        if given is not None and not (name in NEUTRAL and given == NEUTRAL[name])
    }


class OpenAIBody(BaseModel):
    """A body as OpenAI's clients send it: null is as good as nothing, and what is not here is refused by its name."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    _asked_for = model_validator(mode="before")(_without_what_asks_for_nothing)

    def refuse_unknown(self) -> None:
        """Raises Problem for the first parameter that there is not."""
        for name in self.model_extra or ():
            shown = name[:100]
            detail = WHY_NOT.get(name, f"the parameter {shown} is not offered here: leave it out")
            raise Problem(400, UNSUPPORTED, detail, param=shown)


class StreamOptions(RequestBody):
    """Of a stream."""

    include_usage: Annotated[bool, Field(strict=True)] = False


# One is left for `user`.
JobMetadata = Annotated[dict[MetadataName, MetadataText], Field(max_length=15)]


class ChatCompletionBody(OpenAIBody):
    """Body of `POST /v1/chat/completions`; `timeout`, `top_k`, `repetition_penalty`, `cancel_on_disconnect`: ours."""

    model: ModelName
    messages: Annotated[
        list[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES, json_schema_extra=MESSAGES_SCHEMA)
    ]
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_format: ResponseFormat | None = None
    top_k: TopK | None = None
    repetition_penalty: RepetitionPenalty | None = None
    stream: Annotated[bool, Field(strict=True)] = False
    stream_options: StreamOptions | None = None
    user: Annotated[Text, Field(max_length=512, description="Kept in the job's metadata")] | None = None
    metadata: JobMetadata | None = Field(None, description="Kept with the job")
    timeout: Timeout | None = None
    cancel_on_disconnect: Annotated[
        bool, Field(strict=True, description="Of a stream: to leave before its end is to cancel the job")
    ] = False

    def request(self, model: Model) -> ChatRequest:
        """The job's request to this model. An image among the messages has been taken out (see `IMAGE_PART`).

        Raises:
            Problem: It asks for what is not offered, or does not fit.
        """
        self.refuse_unknown()
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            detail = "max_completion_tokens is the newer name of max_tokens: give one of them"
            raise Problem(400, "invalid-body", detail, param="max_tokens")
        if self.stream_options is not None and not self.stream:
            raise Problem(400, "invalid-body", "stream_options is for stream=true only", param="stream_options")
        try:
            instruction, turns = conversation(self.messages)
            return ChatRequest(
                prompt=turns[-1].text, history=turns[:-1] or None, instruction=instruction, provider=model.provider,
                model=model.name, timeout=self.timeout, generation_config=self._generation(),
                image=image_of(self.messages),
            )  # fmt: skip
        except ValidationError as error:
            told = invalid_body(error.errors())
            raise Problem(400, told.code, f"messages: {told.detail}", param="messages") from None

    def job_metadata(self) -> dict[str, str]:
        """What is kept with the job."""
        return {**(self.metadata or {}), **({"user": self.user} if self.user else {})}

    def _generation(self) -> GenerationConfig:
        given = {name: getattr(self, name) for name in GENERATION if getattr(self, name) is not None}
        if self.max_completion_tokens is not None:
            given["max_tokens"] = self.max_completion_tokens
        return GenerationConfig.model_construct(**given)  # each was looked at: the fields are the same


GENERATION = tuple(ChatCompletionBody.model_fields.keys() & GenerationConfig.model_fields.keys())


def conversation(messages: Sequence[dict[str, Any]]) -> tuple[str | None, tuple[Turn, ...]]:
    """The instruction, and the turns, the last one a user's; those of one side after each other are one turn.

    Raises:
        Problem: A message is none, or holds what is not offered; its `param` says which.
        ValidationError: One is too long.
    """
    instructions: list[str] = []
    said: list[tuple[str, str]] = []
    last = ("", "", 0)
    for n, message in enumerate(messages):
        role, text = _role(message, n), _text(message, n)
        if role in ("system", "developer"):
            instructions.append(text)
            continue
        last = (role, text, n)
        if said and said[-1][0] == role:
            said[-1] = (role, f"{said[-1][1]}\n\n{text}")
        elif text.strip():
            said.append((role, text))
    role, text, n = last
    if role != "user":
        raise _wrong(f"messages[{n}].role", "the last message that is no instruction has to be a user's")
    if not text.strip():
        raise _wrong(f"messages[{n}].content", "it must hold more than white space")
    if len(said) > MAX_TURNS:
        raise _wrong("messages", f"a conversation is at most {MAX_TURNS} turns")
    return "\n\n".join(filter(None, instructions)) or None, tuple(Turn(role=role, text=text) for role, text in said)


def _role(message: dict[str, Any], n: int) -> str:
    role = message.get("role")
    if role not in ROLES:
        why = "tools are not offered here" if role in ("tool", "function") else f"one of {', '.join(sorted(ROLES))}"
        raise _wrong(f"messages[{n}].role", why)
    for name, value in message.items():
        if name not in ("role", "content", "refusal") and value not in (None, []):
            raise _wrong(f"messages[{n}].{name[:100]}", "it is not offered here: leave it out", code=UNSUPPORTED)
    return str(role)


def _text(message: dict[str, Any], n: int) -> str:
    """The text of a message, or of its parts one after the other."""
    content, at = message.get("content"), f"messages[{n}].content"
    if content is None:
        content = message.get("refusal")  # an answer of ours, or of OpenAI's, that is said again
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise _wrong(at, "it must be a text, or a list of parts of type text")
    return "".join(_part(part, f"{at}[{number}]") for number, part in enumerate(content))


def _part(part: Any, at: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url" and stands_for_one(part):
        return ""
    if kind in ("text", "refusal") and isinstance(text := part.get(kind), str):
        return text
    raise _wrong(at, "it must be a part of type text")


def _wrong(param: str, why: str, *, code: str = "invalid-body") -> Problem:
    return Problem(400, code, f"{param}: {why}", param=param)
