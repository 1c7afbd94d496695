from datetime import timedelta
from types import SimpleNamespace

import pytest

from schemas.events import ProviderOffer, WorkerHeartbeat
from tests.factories import NOW
from transport import table as table_module
from transport.clients import KafkaAccess
from transport.table import CompactedTable
from transport.workers import (
    KEPT_S,
    SILENT_WORKER_S,
    kept,
    live_workers,
    offered_providers,
    present_providers,
    seen_providers,
    silent_providers,
    why_not_training,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(table_module, "monotonic", lambda: clock.s)
    return clock


@pytest.fixture
def beats(clock: SimpleNamespace) -> CompactedTable[WorkerHeartbeat]:
    return CompactedTable(KafkaAccess("nowhere:1"), "worker-heartbeat", WorkerHeartbeat)


def beat(
    beats, worker: str, *, appended_s: float, provider: str = "openai", clock_off_s: float = 0, stopped=False, **offer
):
    event = WorkerHeartbeat(
        worker=worker, at=NOW + timedelta(seconds=clock_off_s), roles=("completion",), stopped=stopped,
        providers=(ProviderOffer(name=provider, **offer),),
    )  # fmt: skip
    value = event.model_dump_json().encode()
    beats._take(SimpleNamespace(key=worker.encode(), value=value, offset=0, timestamp=int(appended_s * 1000)))


def test_a_worker_whose_clock_is_20_s_off_lives_all_the_same(beats) -> None:
    beat(beats, "late", appended_s=100, clock_off_s=-20)
    beat(beats, "early", appended_s=100, clock_off_s=20)
    assert {found.worker for found in live_workers(beats)} == {"late", "early"}


def test_a_worker_is_dead_once_it_was_silent_for_long(beats, clock) -> None:
    beat(beats, "dead", appended_s=100, provider="local")
    beat(beats, "alive", appended_s=100 + SILENT_WORKER_S - 1)
    assert present_providers(beats) == ["local", "openai"]
    clock.s += 2  # nothing more is heard of either
    assert present_providers(beats) == ["openai"]
    clock.s += SILENT_WORKER_S
    assert present_providers(beats) == []
    assert seen_providers(beats) == ["local", "openai"]


def test_what_an_older_log_tells_is_old_as_soon_as_something_newer_is_read(beats) -> None:
    beat(beats, "of last week", appended_s=100, provider="local")
    beat(beats, "of now", appended_s=100_000)
    assert present_providers(beats) == ["openai"]


def test_a_worker_that_has_said_good_bye_is_seen_and_not_present(beats) -> None:
    beat(beats, "gone", appended_s=100, stopped=True)
    assert present_providers(beats) == []
    assert seen_providers(beats) == ["openai"]


def test_who_only_makes_vectors_is_silent_until_somebody_has_it_answer(beats) -> None:
    beat(beats, "embeds", appended_s=100, provider="local", can=("embeddings",))
    beat(beats, "both", appended_s=100, provider="openai", can=("stream", "embeddings"))
    beat(beats, "plain", appended_s=100, provider="qwen3vl", can=())
    assert silent_providers(beats) == ["local"]
    beat(beats, "answers", appended_s=100, provider="local", can=("stream",))
    assert silent_providers(beats) == []


def test_an_answer_is_kept_for_a_moment_and_then_asked_for_again() -> None:
    at, asked = 0.0, iter(range(10))
    answered = kept(lambda: next(asked), now=lambda: at)
    assert [answered(), answered()] == [0, 0]
    at += KEPT_S
    assert [answered(), answered()] == [1, 1]


def test_what_live_workers_say_of_a_provider_is_told_the_newest_first(beats) -> None:
    beat(beats, "unasked", appended_s=100, code="unasked")
    beat(beats, "early", appended_s=100, code="early", checked_at=NOW)
    beat(beats, "late", appended_s=100, code="late", checked_at=NOW + timedelta(seconds=9))
    beat(beats, "gone", appended_s=100, provider="local", stopped=True)
    offered = offered_providers(beats)
    assert {name: [offer.code for offer in offers] for name, offers in offered.items()} == {
        "openai": ["late", "early", "unasked"]
    }


def test_what_trains_is_no_provider_of_answers_and_what_cannot_says_why(beats) -> None:
    beat(beats, "a", appended_s=100, provider="local", can=("embeddings",))
    beat(beats, "b", appended_s=100, provider="qwen3vl", can=("training",))
    beat(beats, "c", appended_s=100, provider="local", can=("training-unavailable",), note="do: make lora")
    assert present_providers(beats) == seen_providers(beats) == ["local"]
    assert silent_providers(beats) == ["local"]
    assert present_providers(beats, can="training") == ["qwen3vl"]
    assert why_not_training(beats) == {"local": "do: make lora"}
    beat(beats, "d", appended_s=100, provider="local", can=("training",))  # on another machine
    assert why_not_training(beats) == {}


def test_what_speaks_is_no_provider_of_answers_and_the_other_way_round(beats) -> None:
    beat(beats, "a", appended_s=100, provider="local", can=("stream",))
    beat(beats, "b", appended_s=100, provider="local", can=("speech",), speakers=("joe",))
    beat(beats, "c", appended_s=100, provider="qwen-tts", can=("speech",))
    beat(beats, "d", appended_s=100, provider="untold")
    assert present_providers(beats) == seen_providers(beats) == ["local", "untold"]
    assert present_providers(beats, can="speech") == seen_providers(beats, can="speech") == ["local", "qwen-tts"]
    (offer,) = offered_providers(beats)["local"]
    assert offer.can == ("stream",)
    (offer,) = offered_providers(beats, can="speech")["local"]
    assert offer.speakers == ("joe",)
