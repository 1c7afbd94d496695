"""Which failures send a job on to its next provider, when, and with what."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from processors.completion.fall_over import CLASSES, FallOver
from processors.errors import PermanentError, RetryableError
from processors.generate_completion import generate_completion
from processors.ports import Completion
from processors.run_stage import Limits, Past, run_stage
from processors.stage import DeadLetter, Emit, Hop, Later
from schemas.events import Attempt, CompletionRequested, JobFinished
from schemas.generation import GenerationConfig
from tests.factories import NOW, chat_request, completion_requested, job
from tests.fakes import FakeDeltas, OpenGuard
from tests.processors.test_run_stage import FakeProvider, completion, ran

NAMES = ("openai", "gemini", "local")
AWAY = RetryableError("provider-unreachable", "away")
BUSY = RetryableError("provider-http-503", "busy")
SLOW_DOWN = RetryableError("provider-http-429", "slow down", retry_after_s=1)
WITHHELD = completion("I cannot", finish_reason="content_filter")


def of_several(provider: str = "openai", names: tuple[str, ...] = NAMES, **fields: Any) -> CompletionRequested:
    request = chat_request(provider=names, **fields.pop("request", {}))
    expires_at = NOW + timedelta(hours=1)
    return completion_requested(request=request, provider=provider, job=job(expires_at=expires_at), **fields)


@pytest.mark.parametrize(
    ("failure", "calls", "reason"),
    [
        (AWAY, 4, "unreachable"), (BUSY, 4, "http-5xx"), (RetryableError("provider-http-429", "x"), 4, "http-429"),
        (SLOW_DOWN, 1, "http-429"), (RetryableError("breaker-open", "x", retry_after_s=3), 1, "breaker-open"),
        (PermanentError("context-too-long", "x"), 1, "context-too-long"), (WITHHELD, 1, "filtered"),
    ],
)  # fmt: skip
async def test_a_failure_goes_on_after_its_quick_tries_or_at_once(failure, calls: int, reason: str) -> None:
    result, provider, _ = await ran(*[failure] * 4, event=of_several())
    assert isinstance(result, Hop)
    assert (result.source, result.event.provider, result.reason) == ("openai", "gemini", reason)
    assert len(provider.requests) == calls
    assert [attempt.provider for attempt in result.event.attempts] == ["openai"] * calls
    assert {attempt.code for attempt in result.event.attempts} == {result.code}


@pytest.mark.parametrize("reason", CLASSES)
async def test_each_class_can_be_switched_off(reason: str) -> None:
    failures: dict[str, Any] = {
        "unreachable": AWAY, "http-429": SLOW_DOWN, "http-5xx": BUSY, "filtered": WITHHELD,
        "timeout": RetryableError("provider-http-408", "x"), "context-too-long": PermanentError("context-too-long", ""),
    }  # fmt: skip
    without = FallOver(frozenset(CLASSES) - {reason})
    result, *_ = await ran(*[failures[reason]] * 4, event=of_several(), fall_over=without)
    assert isinstance(result, Emit | Later | DeadLetter)
    result, *_ = await ran(*[failures[reason]] * 4, event=of_several(), fall_over=FallOver(frozenset({reason})))
    assert isinstance(result, Hop)


@pytest.mark.parametrize("error", [PermanentError("provider-http-401", "no"), KeyError("a bug")])
async def test_what_is_wrong_here_is_not_hidden_behind_another_provider(error: Exception) -> None:
    result, *_ = await ran(error, event=of_several())
    assert isinstance(result, DeadLetter)


async def test_the_last_provider_has_the_usual_tries_and_waits() -> None:
    result, *_ = await ran(*[AWAY] * 4, event=of_several("local"))
    assert isinstance(result, Later)
    result, *_ = await ran(WITHHELD, event=of_several("local"))
    assert isinstance(result, Emit)


async def test_the_hop_is_the_same_event_with_all_tries_and_what_is_left_of_the_time() -> None:
    before = (Attempt(provider="openai", code="provider-unreachable", ms=7),)
    event = of_several("gemini", timeout_s=30.0, left_s=20.0, attempts=before, retry=2)
    result, *_ = await ran(*[BUSY] * 4, event=event, past=Past(2, before), limits=Limits(0, 20, 3600))
    assert isinstance(result, Hop)
    hop = result.event
    assert (hop.provider, hop.retry, hop.timeout_s, hop.job, hop.request) == (
        "local",
        0,
        30.0,
        event.job,
        event.request,
    )
    assert [(attempt.provider, attempt.code) for attempt in hop.attempts] == [
        ("openai", "provider-unreachable"), ("gemini", "provider-http-503"),
    ]  # fmt: skip
    assert hop.left_s is not None
    assert 19 < hop.left_s <= 20


async def test_the_outcome_tells_the_tries_of_all_providers() -> None:
    result, *_ = await ran(
        completion(), event=of_several("local"), past=Past(0, (Attempt(provider="openai", code="x", ms=1),))
    )
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    assert [attempt["provider"] for attempt in (finished.result or {})["meta"]["attempts"]] == ["openai", "local"]


@pytest.mark.parametrize(
    ("alive", "wanted"),
    [(("openai", "local"), "local"), (NAMES, "gemini"), ((), "gemini"), (("openai",), None)],
)
def test_a_provider_that_no_worker_has_is_passed_over(alive: tuple[str, ...], wanted: str | None) -> None:
    onward = FallOver(alive=lambda: alive).of(of_several())
    assert (onward.provider if onward else None) == wanted


def test_one_provider_has_no_way_on() -> None:
    for asked_for in ("openai", ("openai",), None):
        event = completion_requested(request=chat_request(provider=asked_for))
        assert FallOver().of(event) is None


class Hangs(FakeProvider):
    """Tells `words` and then says nothing more."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    async def stream(self, request: Any, on_delta: Any) -> Completion:
        for word in self.words:
            await on_delta(word)
        await asyncio.Event().wait()
        raise AssertionError


async def hung(provider: Any, event: CompletionRequested, *, timeout_s: float) -> Any:
    async def stage(event, *, now):
        return await generate_completion(
            event, provider=provider, deltas=FakeDeltas(), guard=OpenGuard(), fall_over=FallOver(),
            max_response_chars=100, now=now,
        )  # fmt: skip

    return await run_stage(
        stage, event, job=event.job, target="openai", limits=Limits(3, timeout_s, 60), now=lambda: NOW,
        onward=FallOver().of(event),
    )  # fmt: skip


async def test_a_provider_without_a_word_in_its_share_of_the_time_is_left() -> None:
    result = await hung(Hangs(), of_several(timeout_s=0.2), timeout_s=0.2)
    assert isinstance(result, Hop)
    (attempt,) = result.event.attempts
    assert (attempt.code, result.reason) == ("timeout", "timeout")
    assert 80 <= attempt.ms < 200
    assert 0.05 <= (result.event.left_s or 0) <= 0.12


async def test_one_that_has_begun_to_answer_may_take_all_of_it() -> None:
    result = await hung(Hangs("Because"), of_several(timeout_s=0.2), timeout_s=0.2)
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "timeout"
    assert finished.attempts[0].ms >= 180


async def test_a_failure_is_simulated_without_asking_and_without_quick_tries() -> None:
    request = {"generation_config": GenerationConfig(simulate_failure=("openai",))}
    result, provider, waits = await ran(event=of_several(request=request))
    assert isinstance(result, Hop)
    assert (provider.requests, waits) == ([], [])
    assert [attempt.code for attempt in result.event.attempts] == ["provider-unreachable"]
    result, provider, _ = await ran(completion(), event=of_several("gemini", request=request))
    assert isinstance(result, Emit)


async def test_quick_tries_leave_the_next_provider_its_share_of_the_time() -> None:
    result, provider, waits = await ran(*[AWAY] * 4, event=of_several(), limits=Limits(3, 0.2, 60))
    assert isinstance(result, Hop)
    assert (len(provider.requests), waits) == (1, [])


async def test_a_try_that_has_no_place_is_not_made() -> None:
    async def full(most_s: float) -> bool:
        return False

    result, provider, _ = await ran(AWAY, turn=full)
    assert isinstance(result, Later)
    assert len(provider.requests) == 1
