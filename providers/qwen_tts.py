"""Speech from Qwen3-TTS, served over HTTP with an API of its own; the embedded voice speaks it, too.

POST /tts/custom_voice answers with a WAV file. What GET /get_speakers and /get_languages answer is a list of names, as
it is or as the one field of an object: both are read.
"""

from typing import Annotated, Any

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from processors.speech.speech_ports import Voices
from providers.failures import senseless
from providers.plain_http import asked, make_http_client, read

NAME, LOCAL = "qwen-tts", "local"
MAX_NAMES, MAX_NAME_CHARS = 100, 100
VOICES_TIMEOUT_S = 5.0
# The longest piece and how many at once. Of the server on a GPU: long enough for a voice to find its tone. Of the
# embedded one, which says a text on one core: about a sentence, two at a time.
PIECES = {NAME: (400, 1), LOCAL: (120, 2)}

Name = Annotated[str, Field(min_length=1)]


class _Speakers(BaseModel):
    speakers: list[Name]


class _Languages(BaseModel):
    languages: list[Name]


_SPEAKERS: TypeAdapter[Any] = TypeAdapter(list[Name] | _Speakers)
_LANGUAGES: TypeAdapter[Any] = TypeAdapter(list[Name] | _Languages)


class QwenTtsProvider:
    """See `SpeechProvider`."""

    def __init__(self, client: httpx.AsyncClient, *, name: str = NAME) -> None:
        """`client`: from `make_http_client`."""
        self._client, self.name = client, name
        self.max_piece_chars, self.pieces_at_once = PIECES[name]

    async def speak(
        self, text: str, *, speaker: str, language: str, instruct: str | None, timeout_s: float
    ) -> bytes:  # fmt: skip
        """See `SpeechProvider.speak`."""
        body = {"text": text, "speaker": speaker, "language": language, "instruct": instruct or ""}
        async with asked(
            self._client, self.name, "POST", "/tts/custom_voice", json=body, timeout_s=timeout_s + 1
        ) as response:
            return await read(response, self.name)

    async def voices(self) -> Voices:
        """See `SpeechProvider.voices`; asked anew each time."""
        speakers = await self._names("/get_speakers", _SPEAKERS, _Speakers)
        return Voices(speakers, await self._names("/get_languages", _LANGUAGES, _Languages))

    async def _names(self, path: str, adapter: TypeAdapter[Any], kind: type[BaseModel]) -> tuple[str, ...]:
        async with asked(self._client, self.name, "GET", path, timeout_s=VOICES_TIMEOUT_S) as response:
            body = await read(response, self.name)
        try:
            found = adapter.validate_json(body)
        except ValidationError:
            raise senseless(self.name) from None
        names = next(iter(found.model_dump().values())) if isinstance(found, kind) else found
        return tuple(name[:MAX_NAME_CHARS] for name in names[:MAX_NAMES])

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def make_qwen_tts(*, base_url: str, connections: int, name: str = NAME) -> QwenTtsProvider:
    """The adapter; it needs no key."""
    return QwenTtsProvider(make_http_client(base_url=base_url.rstrip("/"), connections=connections), name=name)
