"""Stage: speech-requested -> job-finished."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from processors.errors import PermanentError
from processors.route_job import NO_SUCH_PROVIDER
from processors.speech.join_audio import InvalidAudioError, Sound, join, read_wav, write_wav
from processors.speech.speech_ports import AudioStore, KeptAudio, SpeechProvider, Voices
from processors.speech.split_speech import split_speech
from processors.stage import Emit, StageResult
from schemas.events import JobError, JobFinished, SpeechRequested
from schemas.requests import SpeechRequest

NO_SUCH_SPEAKER, NO_SUCH_LANGUAGE, TOO_LONG = "no-such-speaker", "no-such-language", "speech-too-long"
EMPTY = "nothing-to-say"
ANY_SPEAKER, ANY_LANGUAGE = "Vivian", "Auto"  # what a request says that does not say it
MAX_AUDIO_BYTES = 20 * 1024 * 1024
TOLD_NAMES = 100


class VoiceError(Exception):
    """A speaker or a language that a provider has not. `code`, `message`: as clients see it; `names`: what it has."""

    def __init__(self, code: str, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.code, self.message, self.names = code, message, tuple(names)[:TOLD_NAMES]


async def generate_speech(
    event: SpeechRequested, *, providers: Mapping[str, SpeechProvider], audio: AudioStore, max_chars: int, now: datetime
) -> StageResult:
    """Have the text said, piece by piece, and keep it as one file.

    Args:
        event: The text.
        providers: Those that this worker has.
        audio: Where the file goes.
        max_chars: The longest text.
        now: The time of the call.

    Returns:
        `Emit` with one `JobFinished`, whose result is `{audio: {payload_id, media_type, size, sha256, seconds},
        provider, speaker, language, meta}`, or whose error is `speech-too-long`, `no-such-provider`,
        `no-such-speaker`, `no-such-language`, `nothing-to-say` or `output-too-large`.

    Raises:
        RetryableError, PermanentError: As the provider or the store raised them, or what came is no audio.
    """
    request, provider = event.request, providers.get(event.provider)
    if len(request.prompt) > max_chars:
        return _failed(event, TOO_LONG, too_long(max_chars), now)
    if provider is None:
        there = ", ".join(providers) or "none"
        return _failed(event, NO_SUCH_PROVIDER, f"the provider {event.provider} does not speak here: {there}", now)
    try:
        speaker, language = chosen_voice(request, await provider.voices(), provider=provider.name)
    except VoiceError as error:
        return _failed(event, error.code, error.message, now)
    kept = await audio.find(event.job)
    if kept is None:
        try:
            sounds = await _said(event, provider, speaker=speaker, language=language)
        except _TooLargeError:
            message = f"what was spoken is larger than {MAX_AUDIO_BYTES} bytes: send the text in parts"
            return _failed(event, "output-too-large", message, now)
        sounds = [sound for sound in sounds if sound.samples]
        if not sounds:
            return _failed(event, EMPTY, "there is nothing in the text that can be said: send words", now)
        kept = await audio.keep(event.job, write_wav(_joined(sounds, provider.name)))
    result = _result(event, kept, speaker=speaker, language=language)
    return Emit((JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit),))


class _TooLargeError(Exception):
    pass


async def _said(event: SpeechRequested, provider: SpeechProvider, *, speaker: str, language: str) -> list[Sound]:
    """The pieces in their order, some of them said at the same time; where one fails, the others are left."""
    request, turns, size = event.request, asyncio.Semaphore(provider.pieces_at_once), 0

    async def say(piece: str) -> Sound:
        nonlocal size
        async with turns:
            spoken = await provider.speak(
                piece, speaker=speaker, language=language, instruct=request.instruct or None, timeout_s=event.timeout_s
            )
        size += len(spoken)
        if size > MAX_AUDIO_BYTES:
            raise _TooLargeError
        return _heard(spoken, provider.name)

    pieces = split_speech(request.prompt, max_chars=provider.max_piece_chars)
    saying = [asyncio.ensure_future(say(piece)) for piece in pieces]
    try:
        return await asyncio.gather(*saying)
    finally:
        for one in saying:
            one.cancel()
        await asyncio.gather(*saying, return_exceptions=True)


def chosen_voice(request: SpeechRequest, voices: Voices, *, provider: str) -> tuple[str, str]:
    """Speaker and language as the provider calls them.

    A request that does not say who speaks says Vivian, who is only one provider's: elsewhere it is the first speaker.
    What a provider does not list is not checked.

    Raises:
        VoiceError: It has not what is asked for.
    """
    speaker = _named(request.speaker, voices.speakers)
    if speaker is None:
        if request.speaker != ANY_SPEAKER:
            raise VoiceError(
                NO_SUCH_SPEAKER, _lacking(provider, "speaker", request.speaker, voices.speakers), voices.speakers
            )
        speaker = voices.speakers[0]
    language = _named(request.language, voices.languages)
    if language is None:
        if request.language != ANY_LANGUAGE:
            raise VoiceError(
                NO_SUCH_LANGUAGE, _lacking(provider, "language", request.language, voices.languages), voices.languages
            )
        language = ANY_LANGUAGE
    return speaker, language


def too_long(max_chars: int) -> str:
    """That a text is."""
    return f"the text is longer than {max_chars} characters: send it in parts"


def _named(wanted: str, names: Sequence[str]) -> str | None:
    """The one that is meant, whatever its letters; where there is no list, it is taken as it is."""
    if not names:
        return wanted
    return next((name for name in names if name.casefold() == wanted.casefold()), None)


def _lacking(provider: str, what: str, wanted: str, names: Sequence[str]) -> str:
    return f"{provider} has no {what} {wanted!r}; it has: {', '.join(names[:TOLD_NAMES])}"


def _heard(wav: bytes, provider: str) -> Sound:
    try:
        return read_wav(wav)
    except InvalidAudioError as error:
        raise PermanentError("provider-invalid-reply", f"{provider} sent audio that is not taken: {error}") from None


def _joined(sounds: Sequence[Sound], provider: str) -> Sound:
    try:
        return join(sounds)
    except InvalidAudioError as error:
        raise PermanentError("provider-invalid-reply", f"{provider} sent audio that is not taken: {error}") from None


def _result(event: SpeechRequested, kept: KeptAudio, *, speaker: str, language: str) -> dict[str, Any]:
    return {
        "audio": {
            "payload_id": str(kept.payload_id), "media_type": "audio/wav", "size": kept.size, "sha256": kept.sha256,
            "seconds": round(kept.seconds, 3),
        },
        "provider": event.provider, "speaker": speaker, "language": language,
        "meta": {"provider": event.provider, "job_id": str(event.job.job_id)},
    }  # fmt: skip


def _failed(event: SpeechRequested, code: str, message: str, now: datetime) -> Emit:
    error = JobError(code=code, message=message)
    return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))
