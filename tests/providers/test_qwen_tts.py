"""Qwen3-TTS's API, against a stand-in that is one by its contract only."""

from collections.abc import AsyncIterator

import pytest

from processors.errors import PermanentError, RetryableError
from processors.speech.speech_ports import Voices
from providers.qwen_tts import QwenTtsProvider, make_qwen_tts
from tests.stand_ins.qwen_tts_api import LANGUAGES, SPEAKERS, QwenTtsStandIn
from tests.wav import hear


@pytest.fixture
async def api() -> AsyncIterator[QwenTtsStandIn]:
    async with QwenTtsStandIn() as api:
        yield api


@pytest.fixture
async def provider(api: QwenTtsStandIn) -> AsyncIterator[QwenTtsProvider]:
    provider = make_qwen_tts(base_url=api.base_url + "/", connections=2)
    yield provider
    await provider.close()


async def speak(provider: QwenTtsProvider, text: str, speaker: str = "Vivian") -> bytes:
    return await provider.speak(text, speaker=speaker, language="Auto", instruct=None, timeout_s=5)


async def test_a_text_is_sent_as_its_api_has_it(provider: QwenTtsProvider, api: QwenTtsStandIn) -> None:
    assert hear(await speak(provider, "Hello, world.")).seconds == pytest.approx(13 * 0.06, abs=0.01)
    assert api.asked == [{"text": "Hello, world.", "speaker": "Vivian", "language": "Auto", "instruct": ""}]


@pytest.mark.parametrize("as_object", [False, True])
async def test_voices_are_read_in_both_shapes(provider: QwenTtsProvider, api: QwenTtsStandIn, as_object: bool) -> None:
    api.as_object = as_object
    assert await provider.voices() == Voices(tuple(SPEAKERS), tuple(LANGUAGES))


@pytest.mark.parametrize(
    ("text", "speaker", "error", "code"),
    [
        ("[mode=503]", "Vivian", RetryableError, "provider-http-503"),
        ("x", "nobody", PermanentError, "provider-http-400"),
        ("[mode=huge]", "Vivian", PermanentError, "provider-invalid-reply"),
    ],
)
async def test_a_failure_is_one_of_ours(
    provider: QwenTtsProvider, text: str, speaker: str, error: type[Exception], code: str
) -> None:
    with pytest.raises(error) as caught:
        await speak(provider, text, speaker)
    assert caught.value.code == code  # type: ignore[attr-defined]  # both have it


async def test_nobody_there_is_worth_another_try() -> None:
    provider = make_qwen_tts(base_url="http://127.0.0.1:1", connections=1)
    with pytest.raises(RetryableError) as caught:
        await provider.voices()
    assert caught.value.code == "provider-unreachable"
    await provider.close()
