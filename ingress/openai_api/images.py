"""The image of a conversation as OpenAI's clients send it: a part of the last user turn, as a `data:` URL.

Source: OpenAI's API reference, "Create chat completion", content parts of type `image_url`.
"""

from collections.abc import Iterator
from typing import Any

from ingress.http.bodies import Holder, ImageKey
from ingress.http.problems import Problem
from processors.completion.fall_over import IMAGES_UNSUPPORTED
from processors.completion.fit_generation import UNSUPPORTED
from schemas.requests import ImageReference

KIND = "image_url"
NOT_FETCHED = "addresses are not fetched here: send the image itself, as data:image/png;base64,..."


def image_of(messages: Any) -> ImageReference | None:
    """What `IMAGE_PART` has put into a conversation, if it had an image."""
    return next((part[KIND]["url"] for *_, part in _parts(messages)), None)


def stands_for_one(part: dict[str, Any]) -> bool:
    """True for an image that was taken out of its message."""
    held = part.get(KIND)
    return isinstance(held, dict) and isinstance(held.get("url"), ImageReference)


def _holder(body: dict[str, Any]) -> Holder | None:
    """The `image_url` of the one image; raises Problem where there are more, or it is not where one is taken."""
    messages: Any = body.get("messages")
    found = list(_parts(messages))
    if not found:
        return None
    n, at, part = found[0]
    if len(found) > 1:
        raise _wrong(found[1][1], "one image is looked at in a request: leave the others out", IMAGES_UNSUPPORTED)
    if _role(messages[n]) != "user" or "assistant" in map(_role, messages[n + 1 :]):
        raise _wrong(at, "images are looked at in the last user turn: leave this one out", IMAGES_UNSUPPORTED)
    held = part.get(KIND)
    if not isinstance(held, dict) or not isinstance(held.get("url"), str):
        raise _wrong(at, "image_url must be an object with the image as a data: URL in url", "invalid-body")
    for name, value in held.items():
        if name != "url" and value is not None and (name, value) != ("detail", "auto"):
            raise _wrong(f"{at}.{KIND}.{name[:100]}", "it is not offered here: leave it out", UNSUPPORTED)
    if held["url"][:8].lower().startswith(("http:", "https:")):
        raise _wrong(at, NOT_FETCHED, "image-invalid")
    return Holder(held, at)


IMAGE_PART = ImageKey("url", _holder)


def _parts(messages: Any) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Parts of type `image_url`: the number of the message, where in it, and the part. Nothing was checked yet."""
    for n, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for number, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and part.get("type") == KIND:
                yield n, f"messages[{n}].content[{number}]", part


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _wrong(param: str, why: str, code: str) -> Problem:
    return Problem(400, code, f"{param}: {why}", param=param)
