"""Providers that speak: which there are, what is offered of them, and addresses that change."""

import asyncio
from typing import Any

import pytest

from processors.errors import RetryableError
from processors.speech.speech_ports import Voices
from settings import Settings
from streams.speakers import KnownVoices, LiveSpeakers, SpeechWatch, addresses
from tests.stand_ins.qwen_tts_api import QwenTtsStandIn
from tests.waiting import until


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def test_one_is_there_with_its_address_and_where_it_is_allowed() -> None:
    assert addresses(settings()) == {}
    both = {"tts_api_url": "http://a", "qwen_tts_base_url": "http://b", "local_speech_url": "http://c"}
    assert addresses(settings(**both)) == {"qwen-tts": "http://a", "local": "http://c"}
    assert addresses(settings(qwen_tts_base_url="http://b", tts_api_url="")) == {"qwen-tts": "http://b"}
    assert addresses(settings(**both, allowed_providers=["local", "openai"])) == {"local": "http://c"}


class FakeSpeaker:
    """Has `there`, or raises it. `asked`: how often."""

    name, max_piece_chars, pieces_at_once = "local", 10, 1

    def __init__(self, there: Voices | Exception) -> None:
        self.there, self.asked = there, 0

    async def voices(self) -> Voices:
        self.asked += 1
        if isinstance(self.there, Exception):
            raise self.there
        return self.there


async def test_voices_are_asked_for_once_a_minute() -> None:
    at = 100.0
    fake = FakeSpeaker(Voices(("joe",), ("English",)))
    known = KnownVoices(fake, now=lambda: at)  # type: ignore[arg-type]  # of what is used
    for _ in range(3):
        assert await known.voices() == fake.there
    assert fake.asked == 1
    at += 61
    await known.voices()
    assert fake.asked == 2


async def test_what_is_offered_is_what_it_says_and_whether_it_is_well() -> None:
    fake = FakeSpeaker(RetryableError("provider-unreachable", "no"))
    known = KnownVoices(fake)  # type: ignore[arg-type]  # as above
    slept: list[float] = []
    next_round = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await next_round.wait()

    watch = SpeechWatch({"local": known}, sleep=sleep)
    assert watch.offers()[0].healthy is None
    running = asyncio.create_task(watch.run())
    await until(lambda: len(slept) == 1)
    (offer,) = watch.offers()
    assert (offer.name, offer.can, offer.healthy, offer.code) == ("local", ("speech",), False, "provider-unreachable")
    fake.there = Voices(("joe",), ("Auto", "English"))
    next_round.set()
    await until(lambda: watch.offers()[0].healthy)
    (offer,) = watch.offers()
    assert (offer.speakers, offer.languages, offer.code) == (("joe",), ("Auto", "English"), None)
    running.cancel()
    assert slept[0] < slept[-1]  # one that is not well is looked at sooner


async def test_an_address_that_changes_is_spoken_to_at_once_and_one_that_is_gone_is_kept() -> None:
    async with QwenTtsStandIn() as first, QwenTtsStandIn() as second:
        live = LiveSpeakers(settings(tts_api_url=first.base_url))
        speaker = live.speakers["qwen-tts"]
        how = {"speaker": "Vivian", "language": "Auto", "instruct": None, "timeout_s": 5}
        await speaker.speak("one", **how)
        live.take(settings(tts_api_url=second.base_url))
        await speaker.speak("two", **how)
        with pytest.raises(ValueError, match="qwen-tts"):
            live.take(settings())
        await speaker.speak("three", **how)
        assert (list(first.calls), list(second.calls)) == (["one"], ["two", "three"])
        await speaker.close()
