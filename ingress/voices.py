"""Who speaks, by what the workers say; and what nobody can say, refused before it is published."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ingress.http.problems import Problem
from processors.generate_speech import NO_SUCH_SPEAKER, TOO_LONG, VoiceError, chosen_voice, too_long
from processors.route_job import NO_SUCH_PROVIDER, not_speaking, speech_time_s
from processors.speech.speech_ports import Voices
from schemas.events import ProviderOffer
from schemas.requests import SpeechRequest

Offers = Mapping[str, Sequence[ProviderOffer]]


class SpeechOffers:
    """What live workers offer of speech."""

    def __init__(
        self, offers: Callable[[], Offers], *, is_known: Callable[[], bool], allowed: Sequence[str], max_chars: int,
        default_s: float,
    ) -> None:  # fmt: skip
        """What is known.

        Args:
            offers: By provider, those that speak, also those of workers that are gone.
            is_known: False while nothing was heard of any worker.
            allowed: Names that may be asked for, in the order in which they are chosen.
            max_chars: Of a text.
            default_s: What a job may take that does not say it.
        """
        self._offers, self._is_known, self._allowed = offers, is_known, allowed
        self._max_chars, self._default_s = max_chars, default_s

    def check(self, request: SpeechRequest) -> None:
        """Return where it could be said; where nobody knows, the stage will.

        Raises:
            Problem: `speech-too-long`, `no-such-provider`, `no-such-speaker`, `no-such-language`; the last three with
                a list of what there is.
        """
        if len(request.prompt) > self._max_chars:
            raise Problem(400, TOO_LONG, too_long(self._max_chars))
        there = self.voices()
        wanted = request.provider
        if not self._is_known():
            return
        if not there or (wanted is not None and wanted not in there):
            absent = [wanted] if wanted is not None else []
            raise Problem(400, NO_SUCH_PROVIDER, not_speaking(absent, list(there)), providers=list(there))
        name = wanted or next(iter(there))
        try:
            chosen_voice(request, there[name], provider=name)
        except VoiceError as error:
            names: dict[str, Any] = {"speakers" if error.code == NO_SUCH_SPEAKER else "languages": list(error.names)}
            raise Problem(400, error.code, error.message, **names) from None

    def with_time(self, request: SpeechRequest) -> SpeechRequest:
        """The request with the time that a text of its length may take, where it does not say another."""
        if request.timeout is not None:
            return request
        time_s = speech_time_s(len(request.prompt), default_s=self._default_s)
        return request.model_copy(update={"timeout": time_s})

    def voices(self) -> dict[str, Voices]:
        """Of each provider that speaks, in the order of `ALLOWED_PROVIDERS`."""
        offers = self._offers()
        return {
            name: Voices(offers[name][0].speakers, offers[name][0].languages)
            for name in self._allowed
            if offers.get(name)
        }
