"""What nobody can say is refused before it is published, with what can be said."""

from typing import Any

import pytest

from ingress.http.problems import Problem
from ingress.voices import SpeechOffers
from schemas.events import ProviderOffer
from schemas.requests import SpeechRequest


def offers(*, known: bool = True, **speakers: tuple[str, ...]) -> SpeechOffers:
    names = {name.replace("_", "-"): there for name, there in speakers.items()}
    told = {
        name: [ProviderOffer(name=name, can=("speech",), speakers=there, languages=("Auto", "English"))]
        for name, there in names.items()
    }
    return SpeechOffers(
        lambda: told, is_known=lambda: known, allowed=("openai", "qwen-tts", "local"), max_chars=50, default_s=30
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "code", "extra"),
    [
        ({"speaker": "joe"}, "no-such-speaker", {"speakers": ["Vivian"]}),
        ({"provider": "local", "speaker": "Serena"}, "no-such-speaker", {"speakers": ["joe"]}),
        ({"language": "Latin"}, "no-such-language", {"languages": ["Auto", "English"]}),
        ({"provider": "openai"}, "no-such-provider", {"providers": ["qwen-tts", "local"]}),
        ({"prompt": "x" * 51}, "speech-too-long", {}),
    ],
)
def test_what_cannot_be_said(fields: dict[str, Any], code: str, extra: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        offers(local=("joe",), qwen_tts=("Vivian",)).check(SpeechRequest(**{"prompt": "Hello."} | fields))
    assert (caught.value.status, caught.value.code, caught.value.extra) == (400, code, extra)


def test_where_nobody_speaks_it_is_said_and_where_nobody_is_known_it_is_left_to_the_stage() -> None:
    with pytest.raises(Problem) as caught:
        offers().check(SpeechRequest(prompt="Hello."))
    assert caught.value.code == "no-such-provider"
    offers(known=False).check(SpeechRequest(prompt="Hello.", provider="local"))


def test_a_provider_that_is_not_allowed_is_not_there() -> None:
    with pytest.raises(Problem) as caught:
        offers(other=("x",)).check(SpeechRequest(prompt="Hello.", provider="other"))
    assert caught.value.code == "no-such-provider"


def test_a_long_text_has_more_time_unless_it_says_otherwise() -> None:
    long = SpeechRequest(prompt="x" * 4000)
    assert offers().with_time(long).timeout == 100
    assert offers().with_time(long.model_copy(update={"timeout": 9})).timeout == 9
