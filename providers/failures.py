"""How every adapter says that a provider failed. Its own words, keys, addresses and prompts are in none of them."""

import re
from collections.abc import Collection, Mapping

from processors.completion.fall_over import CONTEXT_TOO_LONG
from processors.errors import PermanentError, RetryableError
from processors.ports import Capabilities, CompletionRequest
from processors.retries import is_passing_status
from providers.retry_after import retry_after_s

UNREACHABLE = "provider-unreachable"
INVALID_REPLY = "provider-invalid-reply"
CANNOT_SEE = "images-unsupported"
# OpenAI: code `context_length_exceeded`; llama.cpp: type `exceed_context_size_error`; Gemini, Ollama, LM Studio and
# others say it in words only: "exceeds the maximum number of tokens allowed", "exceeds the context length".
_TOO_LONG = re.compile(r"context[ _](length|size|window)|maximum number of tokens|maximum prompt length", re.IGNORECASE)
_READ_CHARS = 1000
ADVICE = {
    400: "it does not take this request",
    401: "it refuses the key; is it right?",
    403: "its key may not do this",
    404: "it does not have the model, or its address is wrong",
}


def unreachable(name: str) -> RetryableError:
    """Nobody answers there, or not in time."""
    return RetryableError(UNREACHABLE, f"{name} cannot be reached")


def broke_off(name: str) -> RetryableError:
    """The connection ended before the answer did."""
    return RetryableError(UNREACHABLE, f"{name} broke off before its answer was whole")


def refused(
    name: str, status: int, headers: Mapping[str, str] | None = None, *, wait_s: float | None = None,
    said: Collection[object] = (),
) -> RetryableError | PermanentError:  # fmt: skip
    """It answered with an error.

    `wait_s` is what it asked for elsewhere than in its headers; `said`, its own words and codes for what is wrong, is
    only looked through for a context that is too long.
    """
    if status != 429 and is_too_long(said):
        return PermanentError(CONTEXT_TOO_LONG, f"the prompt is longer than the context of {name}'s model")
    advice = f": {ADVICE[status]}" if status in ADVICE else ""
    code, message = f"provider-http-{status}", f"{name} answered with status {status}{advice}"
    if not is_passing_status(status):
        return PermanentError(code, message)
    told = retry_after_s(headers) if headers is not None else None
    return RetryableError(code, message, retry_after_s=told if told is not None else wait_s)


def is_too_long(said: Collection[object]) -> bool:
    """True if any of these words of a provider is about a context that is too long."""
    return any(isinstance(words, str) and _TOO_LONG.search(words[:_READ_CHARS]) for words in said)


def said_on_the_way(
    name: str, status: object, headers: Mapping[str, str] | None = None, *, said: Collection[object] = ()
) -> Exception:
    """It told of an error where a piece of its answer should be; `status`: what it called it, if anything."""
    if is_too_long(said):
        return refused(name, 400, said=said)
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    if isinstance(status, int) and 400 <= status <= 599:
        return refused(name, status, headers)
    return broke_off(name)


def senseless(name: str) -> PermanentError:
    """Its reply is not what its API says."""
    return PermanentError(INVALID_REPLY, f"{name} sent a reply that makes no sense")


def too_large(name: str, most: int) -> PermanentError:
    """Its reply was read no further."""
    return PermanentError(INVALID_REPLY, f"the reply of {name} is larger than {most} bytes")


def check_images(name: str, request: CompletionRequest, capabilities: Capabilities) -> None:
    """Raise PermanentError where there are more images than it can look at."""
    if len(request.images) > capabilities.max_images:
        can = f"looks at {capabilities.max_images} at a time" if capabilities.max_images else "cannot look at images"
        raise PermanentError(CANNOT_SEE, f"{name} {can}")


def check_texts(texts: Collection[str], most: int) -> None:
    """Raise ValueError where nobody should have asked for this many."""
    if not 1 <= len(texts) <= most:
        raise ValueError(f"between 1 and {most} texts are embedded at once, not {len(texts)}")
