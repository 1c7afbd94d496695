"""The stage of speech: what it is made of, and its agent.

speech-requested -> generate_speech -> job-finished; the audio goes to the payload store
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from time import monotonic
from typing import Protocol
from uuid import UUID, uuid5

from processors.errors import PermanentError, RetryableError
from processors.generate_speech import generate_speech
from processors.join_audio import read_wav
from processors.speech_ports import KeptAudio, SpeechProvider, Voices
from schemas.events import Job, ProviderOffer, SpeechRequested
from schemas.topics import Catalog
from settings import Settings
from sinks.payloads import Payload, PayloadStore
from streams.app import StreamApp
from streams.decode import decoder
from streams.knowledge import Knowledge
from streams.serve import StageServer, Stream
from transport.workers import SPEECH

logger = logging.getLogger(__name__)

MEDIA_TYPE = "audio/wav"
VOICES_KEPT_S, VOICES_WITHIN_S = 60.0, 5.0
SPARE = 2  # connections over those of the pieces: its voices are asked for, too
NO_STORE = "this worker has no DATABASE_URL, which is where audio is kept: set it, then redrive the job"
QWEN_TTS, LOCAL = "qwen-tts", "local"


class Adapter(SpeechProvider, Protocol):
    """A provider with connections of its own."""

    async def close(self) -> None:
        """Close them."""
        ...


def addresses(settings: Settings) -> dict[str, str]:
    """Where the providers that speak are, of those that are allowed, in the order of `ALLOWED_PROVIDERS`."""
    found = {QWEN_TTS: settings.tts_api_url or settings.qwen_tts_base_url, LOCAL: settings.local_speech_url}
    return {name: url for name in settings.allowed_providers if (url := found.get(name))}


def make_speakers(settings: Settings) -> dict[str, Adapter]:
    """Their adapters, by name."""
    from providers.qwen_tts import PIECES, make_qwen_tts

    return {
        name: make_qwen_tts(
            base_url=url, name=name, connections=settings.speech_concurrency * PIECES[name][1] + SPARE
        )
        for name, url in addresses(settings).items()
    }  # fmt: skip


class KnownVoices:
    """A provider whose voices are asked for once a minute; they are what a worker offers, too."""

    def __init__(self, provider: Adapter, *, now: Callable[[], float] = monotonic) -> None:
        self._provider, self._now = provider, now
        self.name, self.max_piece_chars = provider.name, provider.max_piece_chars
        self.pieces_at_once = provider.pieces_at_once
        self._voices, self._until = Voices(), 0.0
        self._asking = asyncio.Lock()
        self.offer = ProviderOffer(name=provider.name, can=(SPEECH,))

    async def speak(
        self, text: str, *, speaker: str, language: str, instruct: str | None, timeout_s: float
    ) -> bytes:  # fmt: skip
        """See `SpeechProvider.speak`."""
        return await self._provider.speak(
            text, speaker=speaker, language=language, instruct=instruct, timeout_s=timeout_s
        )

    async def voices(self) -> Voices:
        """See `SpeechProvider.voices`."""
        async with self._asking:
            if self._now() >= self._until:
                self._voices = await self._provider.voices()
                self._until = self._now() + VOICES_KEPT_S
        return self._voices

    async def look(self) -> None:
        """Bring what is offered up to date."""
        code: str | None = None
        try:
            async with asyncio.timeout(VOICES_WITHIN_S):
                await self.voices()
        except (RetryableError, PermanentError) as error:
            code = error.code
        except TimeoutError:
            code = "timeout"
        except Exception:  # a bug in an adapter ends neither the worker nor the watch over the others
            logger.exception("a provider could not be asked for its voices", extra={"target": self.name})
            code = "unexpected-error"
        if code != self.offer.code and (code or self.offer.healthy is not None):
            logger.warning("the voice of %s is %s", self.name, f"not well: {code}" if code else "well again")
        self.offer = self.offer.model_copy(update={
            "speakers": tuple(self._voices.speakers), "languages": tuple(self._voices.languages),
            "healthy": code is None, "code": code, "checked_at": datetime.now(UTC),
        })  # fmt: skip


class SpeechWatch:
    """Looks at each provider once a minute, and sooner at one that was not well."""

    def __init__(
        self, speakers: Mapping[str, KnownVoices], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._speakers, self._sleep = speakers, sleep

    def offers(self) -> tuple[ProviderOffer, ...]:
        """Of all of them."""
        return tuple(speaker.offer for speaker in self._speakers.values())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.gather(*(speaker.look() for speaker in self._speakers.values()))
            is_well = all(speaker.offer.healthy for speaker in self._speakers.values())
            await self._sleep(VOICES_KEPT_S if is_well else VOICES_WITHIN_S)


class PayloadAudio:
    """`AudioStore` over the payload store: one payload for each run of a job, whoever writes it first."""

    def __init__(self, store: PayloadStore | None, *, user_bytes: int) -> None:
        """`store`: None in a worker that has no database; `user_bytes`: as much as a user may have there."""
        self._payloads, self._user_bytes = store, user_bytes

    @property
    def _store(self) -> PayloadStore:
        if self._payloads is None:
            raise PermanentError("no-payload-store", NO_STORE)
        return self._payloads

    async def find(self, job: Job) -> KeptAudio | None:
        """See `AudioStore.find`."""
        payload_id = audio_id(job)
        found = await self._store.load(payload_id, user_id=job.user_id)
        return None if found is None else await asyncio.to_thread(_facts, payload_id, found[1])

    async def keep(self, job: Job, wav: bytes) -> KeptAudio:
        """See `AudioStore.keep`."""
        kept = await asyncio.to_thread(_facts, audio_id(job), wav)
        payload = Payload(kept.payload_id, job.user_id, job.job_id, MEDIA_TYPE, kept.sha256, wav)
        await self._store.store(payload, user_bytes=self._user_bytes)
        there = await self.find(job)
        return there or kept


def audio_id(job: Job) -> UUID:
    """Of what a run of a job has said: the same in whichever process."""
    return uuid5(job.job_id, f"audio/{job.run}")


def _facts(payload_id: UUID, wav: bytes) -> KeptAudio:
    return KeptAudio(payload_id, len(wav), sha256(wav).hexdigest(), read_wav(wav).seconds)


async def declare_speech(
    app: StreamApp, server: StageServer, catalog: Catalog, made: Knowledge
) -> SpeechWatch | None:  # fmt: skip
    """Texts that are said: one topic, one lane and one agent for all providers; None where there is no provider.

    Which provider speaks stands in the event; all workers of the role have the same ones.
    """
    settings = made.settings
    adapters = make_speakers(settings)
    if not adapters:
        return None
    for adapter in adapters.values():
        made.stack.push_async_callback(adapter.close)
    speakers = {name: KnownVoices(adapter) for name, adapter in adapters.items()}
    requested = app.lane(catalog.full_name("speech-requested"), "generate_speech", limit=settings.speech_concurrency)
    store = PayloadStore(made.pool) if made.pool is not None else None
    stage = partial(
        generate_speech, providers=speakers, max_chars=settings.max_speech_chars,
        audio=PayloadAudio(store, user_bytes=settings.max_payload_bytes_per_user),
    )  # fmt: skip

    @app.agent(requested, name="generate_speech")
    async def generate_speech_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(SpeechRequested), stage, name="generate_speech")

    return SpeechWatch(speakers)
