"""Bodies in JSON are looked at before they are parsed: how deep, how many values, and numbers that are none.

To parse 200,000 keys, and to tell of each that it does not fit, would keep everybody else waiting for a second. What is
no JSON at all is for the parser to say.
"""

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingress.http.problems import Problem, invalid_body, problem_response

_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else byte for byte in range(256))
_HUGE = b"0" * 400  # all digits being one, a search takes the same time whatever the text
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """`max_depth`: of brackets in brackets; `max_values`: of all of them together."""

    max_depth: int = 64
    max_values: int = 5_000

    def check(self, body: bytes | bytearray) -> None:
        """Raise Problem where a body is beyond them; microseconds for one that is not."""
        opened = body.count(b"[") + body.count(b"{")
        commas = body.count(b",")
        looks_deep, looks_long = opened > self.max_depth, opened + commas > self.max_values
        if not (looks_deep or looks_long or _holds_what_is_no_number(body)):
            return
        # What stands in a text is no bracket and no comma. Backslashes are in texts only.
        bare = bytes(body).replace(b"\\\\", b"").replace(b'\\"', b"")
        if bare.count(b'"') > 4 * self.max_values + 2:  # a value has two, and a key two more
            raise self._too_many()
        bare = b"".join(bare.split(b'"')[::2])
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > self.max_values:
            raise self._too_many()
        if _depth(bare) > self.max_depth:
            raise _refused(f"is nested deeper than {self.max_depth} levels")
        if _holds_what_is_no_number(bare):
            raise _refused("holds a number that is none: NaN, infinity, or one of hundreds of digits")

    def _too_many(self) -> Problem:
        return _refused(f"holds more than {self.max_values} values: send less, or in several requests")


class BoundedJson:
    """Around the app: bodies in JSON are read whole, checked, and handed on. Their size is bounded outside of it."""

    def __init__(self, app: ASGIApp, *, limits: JsonLimits, but: frozenset[str] = frozenset()) -> None:
        """`but`: paths that read and check their bodies themselves, once it is known who sends them."""
        self._app, self._limits, self._but = app, limits, but

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"] in self._but:
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":  # they have left
                break
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        if message["type"] == "http.request" and _may_be_json(scope):
            try:
                self._limits.check(body)
            except Problem as problem:
                await problem_response(problem, scope)(scope, receive, send)
                return
        first: Message | None = message
        if message["type"] == "http.request":
            first = {"type": "http.request", "body": bytes(body), "more_body": False}

        async def receive_again() -> Message:
            nonlocal first
            if first is None:
                return await receive()
            told, first = first, None
            return told

        await self._app(scope, receive_again, send)


def _may_be_json(scope: Scope) -> bool:
    """Anything but a form: FastAPI takes a body without a content type for JSON."""
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return not content_type.startswith((b"multipart/", b"application/x-www-form-urlencoded"))


def _holds_what_is_no_number(text: bytes | bytearray) -> bool:
    return b"NaN" in text or b"Infinity" in text or _HUGE in text.translate(_DIGITS)


def _depth(bare: bytes) -> int:
    depth = deepest = 0
    for char in bare.translate(None, _NOT_BRACKETS):
        depth += 1 if char in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refused(why: str) -> Problem:
    return invalid_body([{"loc": (), "msg": why}])
