"""HTTP as uvicorn reads it, with a bound on all that is no body, a time for each part to come, and an orderly end.

uvicorn's own bound is for its slower parser only, it waits for ever for what does not come, and it closes idle
connections at once.
"""

from asyncio import BaseTransport, TimerHandle
from typing import Any, Literal

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.http.problems import CONTENT_TYPE, Problem, problem_response

MAX_HEAD_BYTES = 16_384
HEAD_TIMEOUT_S, BODY_TIMEOUT_S = 10.0, 60.0
MIN_BODY_BYTES_PER_S = 32_768  # of one that takes longer; ordinary ones are whole by then
LINGER_S = 1.0
ABORT = "assistant.abort"  # an ASGI extension


class _HeadTooLargeError(Exception):
    """Ends the parsing."""


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line and headers, or trailers, or what hides between chunks, have no end.

    The parser tells of a header once it has all of it, and keeps the beginning: so beside what was told, what came
    since it last told anything is counted. Beyond the bound a connection can hold one read of its socket (256 KiB).

    A head that does not come within its time, or a body, ends the connection too, whatever trickles in meanwhile. Of a
    body goes on what comes at a pace at which the largest upload has an end, or what we do not read fast enough.
    """

    max_head_bytes = MAX_HEAD_BYTES
    head_timeout_s, body_timeout_s = HEAD_TIMEOUT_S, BODY_TIMEOUT_S
    min_body_bytes_per_s = MIN_BODY_BYTES_PER_S
    _told_bytes = _untold_bytes = 0
    _heard = _too_large = False
    _body_bytes = 0  # since the timer began to run
    # What is awaited now, and how often that has changed; `_watched`: for which of these the timer runs.
    _awaited: Literal["head", "body"] | None = None
    _changes = _watched = 0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """As asyncio calls it."""
        super().connection_made(transport)  # type: ignore[arg-type]  # as uvicorn has it
        self._await("head")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._await(None)
        self._watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        if self._too_large:
            return
        self._heard = False
        if self._awaited is None:
            self._await("head")
        super().data_received(data)
        self._watch()
        self._untold_bytes = 0 if self._heard else self._untold_bytes + len(data)
        if not self._too_large and self._told_bytes + self._untold_bytes > self.max_head_bytes:
            self._too_large = True
            self.send_400_response("")

    def shutdown(self) -> None:
        """The server stops: an idle connection stays for a moment.

        A request may be on its way; closed now, its sender would not know whether it was accepted. Answers say
        meanwhile that the connection ends (see `Edge`), and the server waits for all connections.
        """
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_S, super().shutdown)
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._told_bytes = 0
        self._await("head")
        super().on_message_begin()
        # For one who takes nothing more: what is still to be written would be kept for as long as TCP hopes.
        self.scope["extensions"] = {ABORT: {"call": self.transport.abort}}

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._await("body")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """So is the body."""
        self._await(None)
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body; its size is the app's to bound."""
        self._heard = True
        self._body_bytes += len(body)
        super().on_body(body)

    def _count(self, size: int) -> None:
        self._heard = True
        self._told_bytes += size
        if self._told_bytes > self.max_head_bytes:
            self._too_large = True
            raise _HeadTooLargeError

    def send_400_response(self, msg: str) -> None:
        """What was sent is no HTTP, or too much of it."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        detail = f"request line and headers are over {self.max_head_bytes} bytes"
        self._refuse(b"431 Request Header Fields Too Large", Problem(431, "headers-too-large", detail))

    # --- time ---

    def _await(self, what: Literal["head", "body"] | None) -> None:
        self._awaited = what
        self._changes += 1

    def _watch(self) -> None:
        """Once for what was read together: a request that came whole needs no timer."""
        if self._watched == self._changes:
            return
        self._watched = self._changes
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._body_bytes = 0
        if self._awaited is not None:
            within_s = self.head_timeout_s if self._awaited == "head" else self.body_timeout_s
            self._timer = self.loop.call_later(within_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._awaited == "head" and self.cycle is not None and not self.cycle.response_complete:
            self._timer = self.loop.call_later(self.head_timeout_s, self._too_slow)  # an answer is under way
            return
        if self._awaited == "body" and self._is_on_its_way():
            self._body_bytes = 0
            self._timer = self.loop.call_later(self.body_timeout_s, self._too_slow)
            return
        has_begun = self._told_bytes > 0 if self._awaited == "head" else not self.cycle.response_started
        if not has_begun:  # nobody has asked for anything, or has half an answer
            self.transport.close()
            return
        detail = "the request did not come in time: send it faster, or less of it"
        self._refuse(b"408 Request Timeout", Problem(408, "too-slow", detail))

    def _is_on_its_way(self) -> bool:
        """The body comes fast enough, or it is we who keep it waiting."""
        return self.flow.read_paused or self._body_bytes >= self.min_body_bytes_per_s * self.body_timeout_s

    def _refuse(self, status: bytes, problem: Problem) -> None:
        body = bytes(problem_response(problem, None).body)
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, CONTENT_TYPE.encode(), len(body), body)
        )
        self.transport.close()


def bounded_http(**bounds: Any) -> type[BoundedHttp]:
    """The same with other bounds: `max_head_bytes`, `head_timeout_s`, `body_timeout_s`, `min_body_bytes_per_s`."""
    return type("BoundedHttp", (BoundedHttp,), bounds)


def abort(scope: Scope) -> None:
    """Close a request's connection at once, and let go what waits to be sent; nothing, where another server runs us."""
    extension = scope.get("extensions", {}).get(ABORT)
    if extension is not None:
        extension["call"]()
