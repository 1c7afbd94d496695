"""What the stand-ins of model APIs have in common: connections, counts, and everything that can go wrong.

The prompt chooses what happens: `[mode=...]` in it is one of MODES, `[delay=0.5]` waits that many seconds, `[held]`
waits until `released` is set, `[fails=3]` answers 503 so many times and then as it should. `[tokens=50]` is the length
of the answer in words, none of which is in the answer to another call; of a stream `[pace=0.02]` is the time between
two pieces, and `[breaks=7]` where the first call of its prompt breaks off. In-process:
`async with OpenAIStandIn() as api`. A subclass says how a vendor's calls look, and how its answers are written.
`GET /counts` tells calls by prompt, connections open, and calls at work; `GET /release` ends all of `[mode=hold]`.
`GET /mode/<mode>` sets that of all other prompts; `GET /busy` tells how many calls are being answered; `GET /asked`
the newest call's body. `per_s`, of an instance: calls a second that are taken, all above them are 429.
"""

import asyncio
import json
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, ClassVar, Self

MODES = ("answer", "empty", "blank", "garbage", "shape", "no-choices", "truncated", "cut", "hang", "stall", "drip",
         "huge", "huge-error", "gzip", "close", "closes", "filtered", "blocked", "error-midway", "hold", "429-seconds",
         "429-date", "429-ms", "429-body", "429-long", "flaky", "no-total", "odd-usage", "no-usage",
         "too-long")  # fmt: skip
WRONG_IN_STREAM = ("garbage", "shape", "truncated", "cut", "stall", "drip", "error-midway", "huge")
SHAPE = b'{"choices": "many", "candidates": 7, "message": 1, "text": [], "models": 2, "data": 3, "embeddings": 4}'
HUGE = 50_000_000
PIECE = b"x" * 65_536
_MODE, _DELAY = re.compile(r"\[mode=([a-z0-9-]+)\]"), re.compile(r"\[delay=([0-9.]+)\]")
_FAILS = re.compile(r"\[fails=(\d+)\]")
_OF_THE_ANSWER = {name: re.compile(rf"\[{name}=([0-9.]+)\]") for name in ("tokens", "pace", "breaks")}


@dataclass
class Call:
    """A request for a completion."""

    prompt: str
    streamed: bool
    body: dict[str, Any]


class ModelApi(ABC):
    """The server. `calls`: prompt -> how often it was asked for; `open`: connections at the moment,
    `accepted`: since it began; `refused`: calls that were too many."""

    key_header: ClassVar[str] = "authorization"
    stream_type: ClassVar[str] = "text/event-stream"
    path: ClassVar[str] = ""  # of the base URL

    def __init__(self, *, port: int = 0, delay_s: float = 0.0) -> None:
        self._port, self._delay_s = port, delay_s
        self.calls: Counter[str] = Counter()
        self.last: tuple[dict[str, Any], str] = ({}, "")  # the newest call's body, and its key
        self.asked: dict[str, Any] = {}  # the newest completion's body
        self.transports: set[asyncio.Transport] = set()
        self.open = self.accepted = 0
        self.max_busy = 0
        self.busy = 0
        self.released = asyncio.Event()
        self.per_s: float | None = None
        self.refused = 0
        self._tokens, self._filled_at = 0.0, 0.0
        self.mode = "answer"  # of prompts that do not choose one
        self.closes_streams = False  # a connection that has streamed is closed, but only when it is used again

    # --- what a vendor's stand-in says ---

    @abstractmethod
    def read_call(self, method: str, path: str, body: dict[str, Any]) -> Call | None:
        """The call for a completion that it is, if it is one."""

    @abstractmethod
    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to every other call: models, embeddings; None: there is no such path."""

    async def before_other(self, path: str, body: dict[str, Any]) -> None:  # noqa: B027 most have nothing to hold
        """Awaited before that reply, so that tests can hold it back."""

    @abstractmethod
    def reply(self, call: Call, text: str, mode: str) -> dict[str, Any]:
        """A whole answer; `mode` may be one of those that only differ in it."""

    @abstractmethod
    def pieces(self, call: Call, text: str, mode: str) -> list[bytes]:
        """The same as a stream, each piece framed; at least two, of which the last ones end it."""

    @abstractmethod
    def error(self, status: int, *, wait_s: float | None = None) -> dict[str, Any]:
        """The body of an error."""

    @abstractmethod
    def too_long(self) -> dict[str, Any]:
        """The body of the 400 to a prompt that is longer than the model's context."""

    def frame(self, data: bytes) -> bytes:
        """Data as a piece of a stream."""
        return b"data: " + data + b"\n\n"

    def error_piece(self) -> bytes:
        """An error where a piece of a stream should be."""
        return self.frame(json.dumps(self.error(500)).encode())

    def refusal(self, call: Call) -> int | None:
        """The status with which the vendor refuses what is wrong with this call, if anything."""
        return None

    # --- for tests ---

    def note_call(self, prompt: str) -> None:
        """Told of each call as it begins."""
        self.calls[prompt] += 1

    def is_too_many(self) -> bool:
        """True for a call above `per_s`."""
        if self.per_s is None:
            return False
        now = time.monotonic()
        self._tokens = min(self.per_s, self._tokens + (now - self._filled_at) * self.per_s)
        self._filled_at = now
        if self._tokens < 1:
            self.refused += 1
            return True
        self._tokens -= 1
        return False

    def text(self, prompt: str) -> str:
        """What is answered."""
        if (tokens := of_the_answer(prompt, "tokens")) is not None:
            return " ".join(f"{self.calls[prompt]}w{n}" for n in range(int(tokens)))
        return f"Answer to: {prompt[:200]}"

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self.path}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port, backlog=2048)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for transport in list(self.transports):
            transport.abort()
        await asyncio.sleep(0)  # the loop closes them in its next turn
        await self._server.wait_closed()


def of_the_answer(prompt: str, name: str) -> float | None:
    """What a prompt says of how it is to be answered."""
    found = _OF_THE_ANSWER[name].search(prompt)
    return float(found.group(1)) if found else None


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as clients use."""

    def __init__(self, api: ModelApi) -> None:
        self._api, self._buffer = api, b""
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._has_streamed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._api.transports.add(transport)
        self._api.open += 1
        self._api.accepted += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._api.open -= 1
        self._api.transports.discard(self._transport)
        self._may_write.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        if self._has_streamed and self._api.closes_streams:
            self._transport.close()
            return
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        size = int(length.group(1)) if length else 0
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        sent = re.search(rb"(?i)\r\n" + self._api.key_header.encode() + rb": *([^\r]+)", head)
        self._key = sent.group(1).decode() if sent else ""
        self._closes = re.search(rb"(?i)\r\nconnection: *close", head) is not None
        self._task = asyncio.get_running_loop().create_task(self._answer(head.split(b"\r\n")[0].decode(), rest[:size]))
        if self._closes:
            self._task.add_done_callback(lambda _: self._transport.close())

    # --- writing ---

    def _send(self, status: int, body: dict[str, Any] | bytes, *headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(content)}", *headers]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    def _begin_stream(self) -> None:
        self._has_streamed = True
        head = f"HTTP/1.1 200 X\r\ncontent-type: {self._api.stream_type}\r\ntransfer-encoding: chunked\r\n"
        self._transport.write(f"{head}connection: close\r\n\r\n".encode() if self._closes else f"{head}\r\n".encode())

    def _send_piece(self, piece: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    async def _send_huge(self, status: int) -> None:
        """As much as a client takes, without holding it."""
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {HUGE}\r\n\r\n"
        self._transport.write(head.encode())
        for _ in range(HUGE // len(PIECE)):
            await self._may_write.wait()
            self._transport.write(PIECE)
        self._transport.write(PIECE[: HUGE % len(PIECE)])

    # --- answering ---

    async def _answer(self, request_line: str, content: bytes) -> None:
        api = self._api
        method, path, _ = request_line.split(" ")
        if path.startswith("/mode/"):
            api.mode = path.removeprefix("/mode/")
            self._send(200, b"{}")
            return
        if path == "/busy":
            self._send(200, b"%d" % api.busy)
            return
        if path == "/counts":
            self._send(200, {"calls": dict(api.calls), "open": api.open - 1, "busy": api.busy,
                             "max_busy": api.max_busy})  # fmt: skip
            return
        if path == "/asked":
            self._send(200, api.asked)
            return
        if path == "/release":
            api.released.set()
            self._send(200, b"{}")
            return
        body = json.loads(content) if content else {}
        call = api.read_call(method, path, body)
        api.last = (body, self._key)
        api.asked = api.asked if call is None else body
        if call is None:
            await self._answer_other(method, path, body)
            return
        api.note_call(call.prompt)
        api.busy += 1
        api.max_busy = max(api.max_busy, api.busy)
        try:
            await self._complete(call)
        finally:
            api.busy -= 1

    async def _answer_other(self, method: str, path: str, body: dict[str, Any]) -> None:
        mode = next(iter(_MODE.findall(json.dumps(body))), "answer")
        if not await self._goes_wrong(mode):
            await self._api.before_other(path, body)
            found = self._api.other(method, path, body)
            self._send(404 if found is None else 200, self._api.error(404) if found is None else found)

    async def _complete(self, call: Call) -> None:
        api, prompt = self._api, call.prompt
        if api.is_too_many():
            self._send(429, api.error(429), "retry-after: 1")
            return
        mode_found, delay_found = _MODE.search(prompt), _DELAY.search(prompt)
        mode = mode_found.group(1) if mode_found else api.mode
        delay = float(delay_found.group(1)) if delay_found else api._delay_s
        if delay:
            await asyncio.sleep(delay)
        if "[held]" in prompt:
            await api.released.wait()
        fails_found = _FAILS.search(prompt)
        if fails_found and api.calls[prompt] <= int(fails_found.group(1)):
            self._send(503, api.error(503))
            return
        if (refusal := api.refusal(call)) is not None:
            self._send(refusal, api.error(refusal))
            return
        if mode == "flaky":
            mode = "503" if api.calls[prompt] < 3 else "answer"
        if mode == "hold":
            await api.released.wait()
        text = {"empty": "", "blank": " \n ", "hold": "released", "blocked": ""}.get(mode, api.text(prompt))
        if call.streamed and mode in WRONG_IN_STREAM:
            await self._stream_wrong(call, text, mode)
        elif await self._goes_wrong(mode):
            return
        elif call.streamed:
            self._begin_stream()
            pace, breaks = of_the_answer(prompt, "pace"), of_the_answer(prompt, "breaks")
            for n, piece in enumerate(api.pieces(call, text, mode)):
                if n == breaks and api.calls[prompt] == 1:
                    self._transport.close()
                    return
                self._send_piece(piece)
                if pace:
                    await asyncio.sleep(pace)
            self._transport.write(b"0\r\n\r\n")
            if mode == "closes":  # without a word, as llama.cpp's server does after each stream
                self._transport.close()
        else:
            self._send(200, api.reply(call, text, mode))

    async def _goes_wrong(self, mode: str) -> bool:
        api = self._api
        if mode.isdigit():
            to = ("location: /elsewhere",) if mode.startswith("3") else ()
            self._send(int(mode), api.error(int(mode)), *to)
        elif mode.startswith("429-"):
            told = {"seconds": "retry-after: 1", "date": "retry-after: " + formatdate(time.time() + 2, usegmt=True),
                    "ms": "retry-after-ms: 300", "long": "retry-after: 90", "body": "x: y"}[mode[4:]]  # fmt: skip
            self._send(429, api.error(429, wait_s=37.5 if mode == "429-body" else None), told)
        elif mode in ("hang", "stall"):
            await asyncio.sleep(3600)
        elif mode == "drip":
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n")
            for _ in range(5000):
                self._transport.write(b" ")
                await asyncio.sleep(1)
        elif mode == "close":
            self._transport.close()
        elif mode in ("truncated", "cut", "error-midway"):
            self._transport.write(
                b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id'
            )
            self._transport.close()
        elif mode == "too-long":
            self._send(400, api.too_long())
        elif mode == "garbage":
            self._send(200, b"<html>not json</html>")
        elif mode == "shape":
            self._send(200, SHAPE)
        elif mode == "gzip":
            self._send(200, b"\x1f\x8b", "content-encoding: gzip")
        elif mode in ("huge", "huge-error"):
            await self._send_huge(200 if mode == "huge" else 500)
        else:
            return False
        return True

    async def _stream_wrong(self, call: Call, text: str, mode: str) -> None:
        """Well begun."""
        pieces = self._api.pieces(call, text, "answer")
        self._begin_stream()
        self._send_piece(pieces[0])
        if mode == "garbage":
            self._send_piece(self._api.frame(b"<html>not json</html>"))
        elif mode == "shape":
            self._send_piece(self._api.frame(SHAPE))
        elif mode == "stall":
            self._send_piece(pieces[1])
            await asyncio.sleep(3600)
        elif mode == "truncated":
            self._transport.write(b"500\r\n" + pieces[1][:5])
            self._transport.close()
            return
        elif mode == "error-midway":
            self._send_piece(self._api.error_piece())
        elif mode == "huge":
            for _ in range(HUGE // len(PIECE)):
                await self._may_write.wait()
                self._send_piece(PIECE)
        elif mode == "drip":
            for byte in b"".join(pieces[1:]):
                self._send_piece(bytes([byte]))
                await asyncio.sleep(1)
        self._transport.write(b"0\r\n\r\n")
