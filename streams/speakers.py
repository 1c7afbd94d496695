"""Providers that speak: where they are, and what of their voices a worker offers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Protocol, cast

from processors.errors import PermanentError, RetryableError
from processors.speech.speech_ports import SpeechProvider, Voices
from schemas.events import ProviderOffer
from settings import Settings
from streams.live_providers import LiveProvider
from transport.workers import SPEECH

logger = logging.getLogger(__name__)

VOICES_KEPT_S, VOICES_WITHIN_S = 60.0, 5.0
SPARE = 2  # connections over those of the pieces: its voices are asked for, too
FIELDS = {"qwen-tts": ("tts_api_url", "qwen_tts_base_url"), "local": ("local_speech_url",)}  # the first that is set


class Adapter(SpeechProvider, Protocol):
    """A provider with connections of its own."""

    async def close(self) -> None:
        """Close them."""
        ...


def addresses(settings: Settings) -> dict[str, str]:
    """Where the providers that speak are, of those that are allowed, in the order of `ALLOWED_PROVIDERS`."""
    found = {
        name: next((url for field in fields if (url := getattr(settings, field))), None)
        for name, fields in FIELDS.items()
    }  # fmt: skip
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


class LiveSpeaker(LiveProvider):
    """A provider whose address may change while it speaks; see there."""

    @property
    def max_piece_chars(self) -> int:
        """As the adapter's."""
        adapter: Any = self._now.adapter
        return int(adapter.max_piece_chars)

    @property
    def pieces_at_once(self) -> int:
        """As the adapter's."""
        adapter: Any = self._now.adapter
        return int(adapter.pieces_at_once)

    async def speak(self, text: str, **how: Any) -> bytes:
        """As the adapter's."""
        async with self._calling() as adapter:
            said: bytes = await adapter.speak(text, **how)
            return said

    async def voices(self) -> Voices:
        """As the adapter's."""
        async with self._calling() as adapter:
            found: Voices = await adapter.voices()
            return found


class LiveSpeakers:
    """Those of a worker, each replaced when its address has changed."""

    def __init__(self, settings: Settings) -> None:
        """Raises nothing: where there is no address, there is no provider."""
        self._addresses = addresses(settings)
        self.speakers = {name: LiveSpeaker(cast(Any, made)) for name, made in make_speakers(settings).items()}

    def take(self, new: Settings) -> None:
        """Called with new settings. Raises ValueError where an address is gone: the last one is kept."""
        found = addresses(new)
        changed = [name for name in self.speakers if found.get(name) not in (None, self._addresses[name])]
        made = make_speakers(new) if changed else {}
        for name in changed:
            self.speakers[name].replace(cast(Any, made[name]))
            self._addresses[name] = found[name]
            logger.info("the provider %s speaks at its new address from now on", name)
        if gone := [name for name in self.speakers if name not in found]:
            raise ValueError(f"the address of {', '.join(gone)} is gone")


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
