"""Around every request: an id, security headers, the body limit, and what is counted. Pure ASGI: microseconds."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from time import perf_counter
from types import MappingProxyType
from uuid import uuid4

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingress.access.caller import note_caller
from ingress.http.problems import CONTENT_TYPE, STANDING, Problem, a_bug, problem_response, rate_limit_headers
from schemas.events import RateLimit
from transport.logs import REQUEST_ID

logger = logging.getLogger(__name__)

StandingOf = Callable[[Scope], Awaitable[RateLimit | None]]
REQUESTS = Counter("assistant_requests_total", "Requests by route and status", ["route", "status"])
REQUEST_SECONDS = Histogram(
    "assistant_request_seconds", "Time until a request's answer begins", ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 30, 60, 125),
)  # fmt: skip
# To ask the library for them costs more than to count.
_requests_of = lru_cache(maxsize=4096)(REQUESTS.labels)
_seconds_of = lru_cache(maxsize=4096)(REQUEST_SECONDS.labels)
MAX_UNDER_WAY = 10_000  # requests, waiting ones too: what each of them holds is bounded, so all of them are
ALWAYS_ANSWERED = {"/livez", "/health", "/readyz", "/metrics"}
_SANE_ID = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# For answers that say nothing themselves: most are JSON, which nobody shows, caches or embeds.
DEFAULT_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Edge:
    """Outermost: what it refuses never reaches FastAPI."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, is_stopping: Callable[[], bool] = lambda: False,
        larger: Mapping[str, int] = MappingProxyType({}), max_under_way: int | None = None,
        standing_of: StandingOf | None = None,
    ) -> None:  # fmt: skip
        """Around an app.

        Args:
            app: What is inside.
            max_body_bytes: Of a body.
            is_stopping: True once callers should come to another replica; their connections end with an answer.
            larger: The bound of those paths that take larger ones.
            max_under_way: Requests at once; None: 10,000.
            standing_of: Where the caller stands of a request that was refused before it was known who calls.
        """
        self._app, self._max_body_bytes, self._is_stopping = app, max_body_bytes, is_stopping
        self._larger, self._max_under_way, self._standing_of = larger, max_under_way, standing_of
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note_caller(scope)
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if _SANE_ID.match(given) else uuid4().hex.encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        REQUEST_ID.set(request_id.decode())

        began = perf_counter()
        replaced = started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal replaced
            if replaced:
                return
            if message["type"] == "http.response.start" and message["status"] == 413 and not _is_problem(message):
                replaced = True  # Starlette's own, of a chunked body
                await problem_response(self._too_large(scope), scope)(scope, receive, send_headers)
                return
            await send_headers(message)

        async def send_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")  # never the path itself: it has no bound
                _requests_of(route, str(message["status"])).inc()
                _seconds_of(route).observe(perf_counter() - began)
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    *SECURITY_HEADERS,
                ]
                said = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [default for default in DEFAULT_HEADERS if default[0] not in said]
                known = scope["state"].get(STANDING)
                standing = known() if known is not None else await self._looked_up(scope, message["status"])
                if standing is not None:
                    _add_standing(message["headers"], standing)
                if self._is_stopping():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body_bytes and int(length) > self._larger.get(scope["path"], 0):
            # Chunked bodies are counted by Starlette's middleware, inside this one.
            await problem_response(self._too_large(scope), scope)(scope, receive, send_headers)
            return
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            detail = "bodies are not unpacked here: send it as it is, without Content-Encoding"
            packed = Problem(415, "content-encoding", detail, headers={"Accept-Encoding": "identity"})
            await problem_response(packed, scope)(scope, receive, send_headers)
            return
        if self._under_way >= (self._max_under_way or MAX_UNDER_WAY) and scope["path"] not in ALWAYS_ANSWERED:
            busy = Problem(503, "overloaded", "too many requests are under way here; try again",
                           headers={"Retry-After": "2"})  # fmt: skip
            await problem_response(busy, scope)(scope, receive, send_headers)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            logger.error("a request failed", exc_info=error)  # noqa: TRY400 one line, as others
            if started:  # half an answer cannot be taken back: uvicorn closes the connection
                raise
            await problem_response(a_bug(), scope)(scope, receive, send_headers)
        finally:
            self._under_way -= 1

    async def _looked_up(self, scope: Scope, status: int) -> RateLimit | None:
        # An overloaded replica (503) looks nobody up, and a 401 is nobody's.
        if status < 400 or status in (401, 503) or self._standing_of is None:
            return None
        return await self._standing_of(scope)

    def _too_large(self, scope: Scope) -> Problem:
        most = max(self._max_body_bytes, self._larger.get(scope["path"], 0))
        return Problem(413, "body-too-large", f"the body is larger than {most} bytes: send less")


def _add_standing(headers: list[tuple[bytes, bytes]], standing: RateLimit) -> None:
    """What an answer says itself stays."""
    told = {name.lower() for name, _ in headers}
    every = {**rate_limit_headers(standing), "Retry-After": str(standing.reset_s)}
    more = [(name.lower().encode(), text.encode()) for name, text in every.items()]
    headers += [(name, text) for name, text in more if name not in told]


def _is_problem(message: Message) -> bool:
    return any(value == CONTENT_TYPE.encode() for _, value in message["headers"])
