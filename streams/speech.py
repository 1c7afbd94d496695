"""The stage of speech: what it is made of, and its agent.

speech-requested -> generate_speech -> job-finished; the audio goes to the payload store
"""

import asyncio
from functools import partial
from hashlib import sha256
from uuid import UUID, uuid5

from processors.errors import PermanentError
from processors.generate_speech import generate_speech
from processors.speech.join_audio import read_wav
from processors.speech.speech_ports import KeptAudio
from schemas.events import Job, SpeechRequested
from schemas.topics import Catalog
from sinks.payloads import Payload, PayloadStore
from streams.app import StreamApp
from streams.decode import decoder
from streams.made import Made
from streams.serve import StageServer, Stream
from streams.speakers import KnownVoices, LiveSpeakers, SpeechWatch

MEDIA_TYPE = "audio/wav"
NO_STORE = "this worker has no DATABASE_URL, which is where audio is kept: set it, then redrive the job"


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
    app: StreamApp, server: StageServer, catalog: Catalog, made: Made
) -> SpeechWatch | None:  # fmt: skip
    """Texts that are said: one topic, one lane and one agent for all providers; None where there is no provider.

    Which provider speaks stands in the event; all workers of the role have the same ones.
    """
    settings = made.settings
    live = LiveSpeakers(settings)
    if not live.speakers:
        return None
    made.live.subscribe(live.take)
    for speaker in live.speakers.values():
        made.stack.push_async_callback(speaker.close)
    speakers = {name: KnownVoices(speaker) for name, speaker in live.speakers.items()}
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
