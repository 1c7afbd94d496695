"""Piper in a process of its own: `python -m embedded.speech_server --port N --voice FILE`.

It speaks Qwen3-TTS's API (POST /tts/custom_voice, GET /get_speakers, GET /get_languages), on this machine only, with
/health beside it. Each text is said on one core, which takes two thirds of the work of a text on two; as many at a time
as there are cores, a few wait, and the rest are told to come again. The only module that imports Piper, which is under
the GPL.
"""

import argparse
import asyncio
import io
import json
import os
import threading
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from piper import PiperVoice

HOST = "127.0.0.1"
MAX_BODY_BYTES, MAX_CHARS, MAX_WAITING = 65_536, 1000, 16
AUTO = "Auto"


class Speaker:
    """One voice, loaded when it is first needed: it takes 130 MB. Its calls are made in threads."""

    def __init__(self, voice: Path) -> None:
        self._file = voice
        about = json.loads(voice.with_name(voice.name + ".json").read_text())
        self._about = about
        self._loading = threading.Lock()
        self._voice: PiperVoice | None = None
        self.name = str(about.get("dataset") or voice.stem.split("-")[1])
        self.language = str(about["language"]["name_english"])
        self._turns = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.waiting = 0

    def _loaded(self) -> "PiperVoice":
        with self._loading:
            if self._voice is None:
                self._voice = self._load()
            return self._voice

    def _load(self) -> "PiperVoice":
        import onnxruntime
        from piper import PiperVoice
        from piper.config import PiperConfig

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # More of it takes a third of a second longer, in which the first text waits, and makes no text quicker.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # which keep what the longest text took
        session = onnxruntime.InferenceSession(
            str(self._file), sess_options=options, providers=["CPUExecutionProvider"]
        )  # fmt: skip
        return PiperVoice(session=session, config=PiperConfig.from_dict(self._about))

    def say(self, text: str, is_left: Any) -> bytes:
        """The text as a WAV file; less of it where nobody waits for it any more (`is_left`)."""
        written, voice = io.BytesIO(), self._loaded()
        with self._turns, wave.open(written, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(voice.config.sample_rate)
            if not is_left():
                for chunk in voice.synthesize(text):
                    file.writeframes(chunk.audio_int16_bytes)
                    if is_left():
                        break
        return written.getvalue()


class Server:
    """The routes."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self.app = Starlette(routes=[
            Route("/tts/custom_voice", self.speak, methods=["POST"]),
            Route("/get_speakers", self.speakers),
            Route("/get_languages", self.languages),
            Route("/health", self.health),
        ])  # fmt: skip

    async def speak(self, request: Request) -> Response:
        """Say a text."""
        try:
            text = await _text_of(request, self._speaker)
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, 400)
        if self._speaker.waiting >= MAX_WAITING:
            return JSONResponse({"detail": "too many texts wait"}, 503, {"retry-after": "2"})
        self._speaker.waiting += 1
        left = threading.Event()
        watching = asyncio.create_task(_tell_when_left(request, left))
        try:
            said = await asyncio.to_thread(self._speaker.say, text, left.is_set)
        finally:
            self._speaker.waiting -= 1
            watching.cancel()
        return Response(said, media_type="audio/wav")

    async def speakers(self, _: Request) -> Response:
        """Who speaks."""
        return JSONResponse([self._speaker.name])

    async def languages(self, _: Request) -> Response:
        """In what."""
        return JSONResponse([AUTO, self._speaker.language])

    async def health(self, _: Request) -> Response:
        """It is there; its voice is loaded by the first text."""
        return JSONResponse({"status": "ok"})


async def _text_of(request: Request, speaker: Speaker) -> str:
    """What is to be said. Raises ValueError where it is not as the API has it."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the body is larger than {MAX_BODY_BYTES} bytes")
    asked = json.loads(body)
    if not isinstance(asked, dict) or not isinstance(asked.get("text"), str):
        raise ValueError("text: there is none")  # noqa: TRY004 of the body, not of an argument
    text: str = asked["text"]
    if len(text) > MAX_CHARS:
        raise ValueError(f"text: it is longer than {MAX_CHARS} characters")
    for name, known in (("speaker", [speaker.name]), ("language", [AUTO, speaker.language])):
        if asked.get(name, known[0]) not in known:
            raise ValueError(f"{name}: there is {', '.join(known)}")
    return text


async def _tell_when_left(request: Request, left: threading.Event) -> None:
    try:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    except ClientDisconnect:
        pass
    left.set()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--voice", type=Path, required=True)
    given = parser.parse_args()
    server = Server(Speaker(given.voice))
    uvicorn.run(
        server.app, host=HOST, port=given.port, log_level="warning", access_log=False, limit_concurrency=100,
        timeout_graceful_shutdown=2,
    )  # fmt: skip


if __name__ == "__main__":
    main()
