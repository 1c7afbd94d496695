"""A stand-in of the OpenAI API, fast enough to measure against; the official client can talk to it.

The prompt chooses what happens: `[mode=...]` in it is one of MODES, `[delay=0.5]` waits that many seconds, `[held]`
waits until `released` is set, `[fails=3]` answers 503 so many times and then as it should. Of a streamed answer
`[tokens=50]` is its length, `[pace=0.02]` the time between two tokens, `[breaks=7]` where its first call breaks off and
`[stops=7]` where it stands still until `released` is set. In-process:
`async with OpenAIStandIn() as api`; as a process: `python -m tests.stand_ins.openai_api --port N [--delay-ms N]`.
`GET /counts` tells calls by prompt, connections open, and calls at work; `GET /release` ends all of `[mode=hold]`.
`GET /mode/<mode>` sets that of all other prompts; `GET /busy` tells how many calls are being answered.
"""

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from email.utils import formatdate
from typing import Any

MODES = ("answer", "empty", "blank", "garbage", "shape", "no-choices", "truncated", "hang", "drip", "huge", "close",
         "filtered", "hold", "429-seconds", "429-date", "429-ms", "429-long", "flaky",
         "no-total", "odd-usage", "no-usage")  # fmt: skip
USAGES: dict[str, Any] = {"no-total": {"prompt_tokens": 7, "completion_tokens": 5},
                          "odd-usage": {"tokens": "many"}, "no-usage": None}  # fmt: skip
_MODE, _DELAY = re.compile(r"\[mode=([a-z0-9-]+)\]"), re.compile(r"\[delay=([0-9.]+)\]")
_FAILS = re.compile(r"\[fails=(\d+)\]")
_STREAMED = {name: re.compile(rf"\[{name}=([0-9.]+)\]") for name in ("tokens", "pace", "breaks", "stops")}


class OpenAIStandIn:
    """The server. `calls`: prompt -> how often it was asked for; `mode`: of prompts that name none, may be changed."""

    def __init__(self, *, port: int = 0, delay_s: float = 0.0) -> None:
        self._port, self._delay_s = port, delay_s
        self.calls: Counter[str] = Counter()
        self.last: tuple[dict[str, Any], str] = ({}, "")  # the newest call's body, and its authorization
        self.transports: set[asyncio.Transport] = set()
        self.open = 0
        self.max_busy = 0
        self.busy = 0
        self.released = asyncio.Event()
        self.mode = "answer"  # of prompts that do not choose one

    def note_call(self, prompt: str) -> None:
        """Told of each call as it begins."""
        self.calls[prompt] += 1

    def text(self, prompt: str) -> str:
        """What is answered."""
        tokens = streamed(prompt, "tokens")
        if tokens is None:
            return f"Answer to: {prompt[:200]}"
        call = self.calls[prompt]  # no two calls are answered with the same words
        return " ".join(f"{call}w{n}" for n in range(int(tokens)))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> "OpenAIStandIn":
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


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as much of it as clients use."""

    def __init__(self, api: OpenAIStandIn) -> None:
        self._api, self._buffer = api, b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._api.transports.add(transport)
        self._api.open += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._api.open -= 1
        self._api.transports.discard(self._transport)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        size = int(length.group(1)) if length else 0
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        sent = re.search(rb"(?i)\r\nauthorization: *([^\r]+)", head)
        self._authorization = sent.group(1).decode() if sent else ""
        self._task = asyncio.get_running_loop().create_task(self._answer(head.split(b"\r\n")[0].decode(), rest[:size]))

    def _send(self, status: int, body: bytes, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *headers]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def _answer(self, request_line: str, body: bytes) -> None:
        api = self._api
        path = request_line.split(" ")[1]
        if path.startswith("/mode/"):
            api.mode = path.removeprefix("/mode/")
            self._send(200, b"{}")
            return
        if path == "/busy":
            self._send(200, b"%d" % api.busy)
            return
        if path == "/counts":
            counts = {"calls": dict(api.calls), "open": api.open - 1, "busy": api.busy, "max_busy": api.max_busy}
            self._send(200, json.dumps(counts).encode())
            return
        if path == "/release":
            api.released.set()
            self._send(200, b"{}")
            return
        if path == "/v1/models":
            models = [{"id": "stand-in", "object": "model", "created": 1, "owned_by": "tests"}]
            self._send(200, json.dumps({"object": "list", "data": models}).encode())
            return
        request = json.loads(body)
        prompt = request["messages"][-1]["content"]
        api.last = (request, self._authorization)
        api.note_call(prompt)
        api.busy += 1
        api.max_busy = max(api.max_busy, api.busy)
        try:
            await self._complete(request, prompt)
        finally:
            api.busy -= 1

    async def _complete(self, request: dict[str, Any], prompt: str) -> None:
        mode_found, delay_found = _MODE.search(prompt), _DELAY.search(prompt)
        mode = mode_found.group(1) if mode_found else self._api.mode
        delay = float(delay_found.group(1)) if delay_found else self._api._delay_s
        if delay:
            await asyncio.sleep(delay)
        if "[held]" in prompt:
            await self._api.released.wait()
        fails_found = _FAILS.search(prompt)
        if fails_found and self._api.calls[prompt] <= int(fails_found.group(1)):
            self._send(503, _error("503"))
        elif mode.isdigit():
            self._send(int(mode), _error(mode))
        elif mode.startswith("429-"):
            told = {"seconds": "retry-after: 1", "date": "retry-after: " + formatdate(time.time() + 2, usegmt=True),
                    "ms": "retry-after-ms: 300", "long": "retry-after: 90"}  # fmt: skip
            self._send(429, _error("429"), told[mode[4:]])
        elif mode == "flaky" and self._api.calls[prompt] < 3:
            self._send(503, _error("503"))
        elif mode == "hold":
            await self._api.released.wait()
            self._send(200, json.dumps(_completion(request, "released")).encode())
        elif mode == "hang":
            await asyncio.sleep(3600)
        elif mode == "drip":
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n")
            for _ in range(5000):
                self._transport.write(b" ")
                await asyncio.sleep(1)
        elif mode == "close":
            self._transport.close()
        elif mode == "truncated":
            self._transport.write(
                b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"id'
            )
            self._transport.close()
        elif mode == "garbage":
            self._send(200, b"<html>not json</html>")
        elif mode == "shape":
            self._send(200, b'{"choices": "many"}')
        elif mode == "no-choices":
            self._send(200, json.dumps(_completion(request, "x") | {"choices": []}).encode())
        elif mode == "huge":
            self._send(200, json.dumps(_completion(request, "x" * 50_000_000)).encode())
        else:
            text = {"empty": "", "blank": " \n "}.get(mode, self._api.text(prompt))
            reply = _completion(request, text, finish="content_filter" if mode == "filtered" else "stop")
            if mode in USAGES:
                reply["usage"] = USAGES[mode]
            if request.get("stream"):
                await self._stream(prompt, reply)
                return
            self._send(200, json.dumps(reply).encode())

    async def _stream(self, prompt: str, reply: dict[str, Any]) -> None:
        (choice,), text = reply["choices"], reply["choices"][0]["message"]["content"]
        pace, breaks, stops = (streamed(prompt, name) for name in ("pace", "breaks", "stops"))
        common = {"id": reply["id"], "object": "chat.completion.chunk", "created": 1, "model": reply["model"]}

        def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
            data = b"data: " + json.dumps({**common, "choices": choices, **more}).encode() + b"\n\n"
            return b"%x\r\n%b\r\n" % (len(data), data)

        head = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        parts = [head]
        for n, word in enumerate(text.split(" ")):
            if n == breaks and self._api.calls[prompt] == 1:
                self._transport.write(b"".join(parts))
                self._transport.close()
                return
            delta = {"role": "assistant", "content": f" {word}" if n else word}
            parts.append(event([{"index": 0, "delta": delta, "finish_reason": None}]))
            if n == stops or pace:
                self._transport.write(b"".join(parts))
                parts.clear()
                await (self._api.released.wait() if n == stops else asyncio.sleep(pace or 0))
        parts.append(event([{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]))
        parts.append(event([], usage=reply["usage"]))
        parts.append(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        self._transport.write(b"".join(parts))


def streamed(prompt: str, name: str) -> float | None:
    """What a prompt says of how its answer is streamed."""
    found = _STREAMED[name].search(prompt)
    return float(found.group(1)) if found else None


def _completion(request: dict[str, Any], text: str, *, finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"],
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }  # fmt: skip


def _error(code: str) -> bytes:
    return json.dumps({"error": {"message": f"it is {code}", "type": "error", "code": code}}).encode()


async def _main(port: int, delay_s: float) -> None:
    async with OpenAIStandIn(port=port, delay_s=delay_s) as api:
        print(api.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(_main(given.port, given.delay_ms / 1000))
