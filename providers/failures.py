"""How every adapter says that a provider failed. Its own words, keys, addresses and prompts are in none of them."""

from collections.abc import Collection, Mapping

from processors.errors import PermanentError, RetryableError
from processors.ports import Capabilities, CompletionRequest
from processors.retries import is_passing_status
from providers.retry_after import retry_after_s

UNREACHABLE = "provider-unreachable"
INVALID_REPLY = "provider-invalid-reply"
CANNOT_SEE = "images-unsupported"
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
    name: str, status: int, headers: Mapping[str, str] | None = None, *, wait_s: float | None = None
) -> RetryableError | PermanentError:
    """It answered with an error; `wait_s` is what it asked for elsewhere than in its headers."""
    advice = f": {ADVICE[status]}" if status in ADVICE else ""
    code, message = f"provider-http-{status}", f"{name} answered with status {status}{advice}"
    if not is_passing_status(status):
        return PermanentError(code, message)
    told = retry_after_s(headers) if headers is not None else None
    return RetryableError(code, message, retry_after_s=told if told is not None else wait_s)


def said_on_the_way(name: str, status: object, headers: Mapping[str, str] | None = None) -> Exception:
    """It told of an error where a piece of its answer should be; `status`: what it called it, if anything."""
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
