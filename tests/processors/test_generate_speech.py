import asyncio
from hashlib import sha256
from uuid import UUID

import pytest

from processors import generate_speech as stage_module
from processors.errors import PermanentError, RetryableError
from processors.generate_speech import generate_speech
from processors.speech.join_audio import read_wav
from processors.speech.speech_ports import KeptAudio, Voices
from processors.stage import Emit
from schemas.events import Job, JobFinished, SpeechRequested
from schemas.requests import SpeechRequest
from tests.factories import NOW, job, rate_limit
from tests.stand_ins.qwen_tts_api import tone
from tests.wav import hear

VOICES = Voices(("Vivian", "Serena"), ("Auto", "English"))
KEPT_ID = UUID(int=7)


class FakeVoice:
    """Says a tone, or what stands for a piece in `replies`, an error where it is one. `most`: pieces at once."""

    name, max_piece_chars, pieces_at_once = "qwen-tts", 20, 2

    def __init__(self, voices: Voices = VOICES, replies: dict[str, bytes | Exception] | None = None) -> None:
        self._voices, self._replies = voices, replies or {}
        self.asked: list[tuple[str, str, str, str | None]] = []
        self.busy = self.most = 0

    async def voices(self) -> Voices:
        return self._voices

    async def speak(
        self, text: str, *, speaker: str, language: str, instruct: str | None, timeout_s: float
    ) -> bytes:  # fmt: skip
        self.asked.append((text, speaker, language, instruct))
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(0.01 / len(self.asked))  # the first takes longest: they come in another order
        finally:
            self.busy -= 1
        reply = self._replies.get(text, tone(len(text) * 0.01))
        if isinstance(reply, Exception):
            raise reply
        return reply


class FakeAudioStore:
    """Keeps one file. `kept`: it."""

    def __init__(self, there: bytes | None = None) -> None:
        self.kept = there

    async def find(self, job: Job) -> KeptAudio | None:
        return None if self.kept is None else self._facts(self.kept)

    async def keep(self, job: Job, wav: bytes) -> KeptAudio:
        self.kept = wav
        return self._facts(wav)

    def _facts(self, wav: bytes) -> KeptAudio:
        return KeptAudio(KEPT_ID, len(wav), sha256(wav).hexdigest(), read_wav(wav).seconds)


def requested(prompt: str = "First one here. And a second one.", **fields) -> SpeechRequested:
    request = SpeechRequest(prompt=prompt, **fields)
    return SpeechRequested(
        job=job(kind="speech"), provider="qwen-tts", request=request, timeout_s=7, rate_limit=rate_limit()
    )  # fmt: skip


async def said(
    event: SpeechRequested, voice: FakeVoice | None = None, store: FakeAudioStore | None = None, max_chars: int = 100
) -> JobFinished:
    result = await generate_speech(
        event, providers={"qwen-tts": voice or FakeVoice()}, audio=store or FakeAudioStore(), max_chars=max_chars,
        now=NOW,
    )  # fmt: skip
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    assert finished.rate_limit == event.rate_limit
    return finished


async def test_the_pieces_are_said_at_once_and_joined_in_their_order() -> None:
    voice, store = FakeVoice(replies={"First one here.": tone(0.3, level=1000)}), FakeAudioStore()
    event = requested(instruct="calmly", speaker="serena", language="ENGLISH")
    finished = await said(event, voice, store)
    assert voice.asked == [
        ("First one here.", "Serena", "English", "calmly"), ("And a second one.", "Serena", "English", "calmly"),
    ]  # fmt: skip
    assert voice.most == 2
    assert store.kept is not None
    heard = hear(store.kept)
    half = int(0.3 * heard.rate)
    assert max(heard.numbers[:half]) <= 1000 < max(heard.numbers[half:])
    assert finished.result == {
        "audio": {
            "payload_id": str(KEPT_ID), "media_type": "audio/wav", "size": len(store.kept),
            "sha256": sha256(store.kept).hexdigest(), "seconds": pytest.approx(heard.seconds, abs=0.001),
        },
        "provider": "qwen-tts", "speaker": "Serena", "language": "English",
        "meta": {"provider": "qwen-tts", "job_id": str(event.job.job_id)},
    }  # fmt: skip


async def test_what_a_worker_that_died_has_kept_is_not_said_again() -> None:
    voice, store = FakeVoice(), FakeAudioStore(tone(0.5))
    finished = await said(requested(), voice, store)
    assert voice.asked == []
    assert finished.result is not None
    assert finished.result["audio"]["sha256"] == sha256(tone(0.5)).hexdigest()


@pytest.mark.parametrize(
    ("fields", "voices", "chosen"),
    [
        ({}, VOICES, ("Vivian", "Auto")),
        ({}, Voices(("joe",), ("English",)), ("joe", "Auto")),  # who does not say who speaks, hears whoever is there
        ({"speaker": "anyone", "language": "any"}, Voices(), ("anyone", "any")),  # nothing is listed
    ],
)
async def test_a_voice_is_chosen_by_its_name(fields: dict[str, str], voices: Voices, chosen: tuple[str, str]) -> None:
    voice = FakeVoice(voices)
    await said(requested("One.", **fields), voice)
    assert voice.asked == [("One.", *chosen, None)]


@pytest.mark.parametrize(
    ("event", "code", "told"),
    [
        (requested(speaker="nobody"), "no-such-speaker", "Vivian, Serena"),
        (requested(language="Latin"), "no-such-language", "Auto, English"),
        (requested("x" * 101), "speech-too-long", "100 characters"),
        (requested().model_copy(update={"provider": "local"}), "no-such-provider", "qwen-tts"),
    ],
)  # fmt: skip
async def test_what_cannot_be_said_ends_the_job_with_what_can(event: SpeechRequested, code: str, told: str) -> None:
    voice = FakeVoice()
    finished = await said(event, voice)
    assert finished.error is not None
    assert finished.error.code == code
    assert told in finished.error.message
    assert voice.asked == []


async def test_a_text_of_which_nothing_can_be_heard_ends_the_job() -> None:
    finished = await said(requested("..."), FakeVoice(replies={"...": tone(0)}))
    assert finished.error is not None
    assert finished.error.code == "nothing-to-say"


async def test_more_audio_than_is_kept_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "MAX_AUDIO_BYTES", 10_000)
    voice, store = FakeVoice(), FakeAudioStore()
    finished = await said(requested(), voice, store)
    assert finished.error is not None
    assert (finished.error.code, store.kept) == ("output-too-large", None)


@pytest.mark.parametrize("wrong", [b"<html>", tone(0.1, rate=16_000)])
async def test_audio_that_is_none_or_does_not_fit_is_the_providers_fault(wrong: bytes) -> None:
    with pytest.raises(PermanentError) as caught:
        await said(requested(), FakeVoice(replies={"First one here.": wrong}))
    assert caught.value.code == "provider-invalid-reply"


async def test_where_a_piece_fails_no_other_goes_on() -> None:
    voice = FakeVoice(replies={"First one here.": RetryableError("provider-unreachable", "no")})
    with pytest.raises(RetryableError):
        await said(requested("First one here. " + "One more is here. " * 20), voice, max_chars=1000)
    assert voice.busy == 0
    assert len(voice.asked) < 10
