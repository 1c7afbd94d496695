"""HTTP as uvicorn reads it, with a bound on all that is no body, and an orderly end.

uvicorn's own bound is for its slower parser only, and it closes idle connections at once.
"""

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingress.problems import CONTENT_TYPE, Problem, problem_response

MAX_HEAD_BYTES = 16_384
LINGER_S = 1.0
ABORT = "assistant.abort"  # an ASGI extension


class _HeadTooLargeError(Exception):
    """Ends the parsing."""


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line and headers, or trailers, or what hides between chunks, have no end.

    The parser tells of a header once it has all of it, and keeps the beginning: so beside what was told, what came
    since it last told anything is counted. Beyond the bound a connection can hold one read of its socket (256 KiB).
    """

    _told_bytes = _untold_bytes = 0
    _heard = _too_large = False

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        if self._too_large:
            return
        self._heard = False
        super().data_received(data)
        self._untold_bytes = 0 if self._heard else self._untold_bytes + len(data)
        if not self._too_large and self._told_bytes + self._untold_bytes > MAX_HEAD_BYTES:
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

    def on_body(self, body: bytes) -> None:
        """A part of the body; its size is the app's to bound."""
        self._heard = True
        super().on_body(body)

    def _count(self, size: int) -> None:
        self._heard = True
        self._told_bytes += size
        if self._told_bytes > MAX_HEAD_BYTES:
            self._too_large = True
            raise _HeadTooLargeError

    def send_400_response(self, msg: str) -> None:
        """What was sent is no HTTP, or too much of it."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        problem = Problem(431, "headers-too-large", f"request line and headers are over {MAX_HEAD_BYTES} bytes")
        body = bytes(problem_response(problem, None).body)
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: %b\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (CONTENT_TYPE.encode(), len(body), body)
        )
        self.transport.close()


def abort(scope: Scope) -> None:
    """Close a request's connection at once, and let go what waits to be sent; nothing, where another server runs us."""
    extension = scope.get("extensions", {}).get(ABORT)
    if extension is not None:
        extension["call"]()
