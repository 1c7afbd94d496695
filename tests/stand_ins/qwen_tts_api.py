"""A stand-in of the server of Qwen3-TTS, by its contract: there is no client of a vendor, and no voice in it.

It says a tone, as long as the text is. The text chooses what happens: `[held]` waits until `released` is set,
`[mode=...]` is one of MODES. `calls`: how often each text was asked for.
As a process: `python -m tests.stand_ins.qwen_tts_api --port N`.
"""

import asyncio
import io
import math
import re
import struct
import wave
from collections import Counter
from typing import Any, Self

from aiohttp import web

from tests.stand_ins.alone import run_alone

MODES = ("garbage", "short", "float", "8-bit", "other-rate", "silent", "503", "422", "huge")
_MODE = re.compile(r"\[mode=([a-z0-9-]+)\]")
FIELDS = {"text", "speaker", "language", "instruct"}
RATE = 24_000
SPEAKERS, LANGUAGES = ["Vivian", "Serena", "Uncle_Fu"], ["Auto", "Chinese", "English"]


def tone(seconds: float, *, rate: int = RATE, width: int = 2, level: int = 8000) -> bytes:
    """A WAV file that begins and ends at the height of its wave, so that a joint without fades clicks."""
    count = int(seconds * rate)
    numbers = [int(level * math.cos(2 * math.pi * 440 * place / rate)) for place in range(count)]
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(
            struct.pack(f"<{count}h", *numbers) if width == 2 else bytes(128 + number // 256 for number in numbers)
        )
    return written.getvalue()


class QwenTtsStandIn:
    """The server; it answers 422 to a body that is not as its contract has it."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self.calls: Counter[str] = Counter()
        self.asked: list[dict[str, Any]] = []
        self.busy = 0
        self.released = asyncio.Event()
        self.as_object = False  # how the names are listed

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/tts/custom_voice", self._speak)
        app.router.add_get("/get_speakers", self._list("speakers", SPEAKERS))
        app.router.add_get("/get_languages", self._list("languages", LANGUAGES))
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        await self._runner.cleanup()

    def _list(self, name: str, names: list[str]) -> Any:
        async def told(_: web.Request) -> web.Response:
            return web.json_response({name: names} if self.as_object else names)

        return told

    async def _speak(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.keys() != FIELDS or not all(isinstance(value, str) for value in body.values()):
            return web.json_response({"detail": "these are not its fields"}, status=422)
        if body["speaker"] not in SPEAKERS or body["language"] not in LANGUAGES:
            return web.json_response({"detail": "no such speaker or language"}, status=400)
        text: str = body["text"]
        self.calls[text] += 1
        self.asked.append(body)
        self.busy += 1
        try:
            if "[held]" in text:
                await self.released.wait()
            found = _MODE.search(text)
            return self._reply(text, found[1] if found else "")
        finally:
            self.busy -= 1

    def _reply(self, text: str, mode: str) -> web.Response:
        if mode.isdigit():
            return web.json_response({"detail": "not now"}, status=int(mode))
        spoken = tone(0 if mode == "silent" else len(text) * 0.06, rate=16_000 if mode == "other-rate" else RATE)
        content = {
            "garbage": b"<html>", "short": spoken[:30], "8-bit": tone(0.1, width=1), "huge": spoken + bytes(9_000_000),
            "float": spoken[:20] + b"\x03\x00" + spoken[22:],
        }.get(mode, spoken)  # fmt: skip
        return web.Response(body=content, content_type="audio/wav")


if __name__ == "__main__":
    run_alone(QwenTtsStandIn)
