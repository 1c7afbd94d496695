import asyncio
import contextlib
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from processors.completion.fall_over import FallOver
from processors.errors import PermanentError, RetryableError
from processors.generate_completion import generate_completion
from processors.ports import Capabilities, Completion, CompletionRequest, Usage
from processors.retries import is_passing_status
from processors.run_stage import Limits, Past, run_plain_stage, run_stage
from processors.stage import DeadLetter, Drop, Emit, Later
from schemas.events import Attempt, JobFinished, StreamedRange
from schemas.generation import GenerationConfig, ResponseFormat
from tests.factories import NOW, chat_request, completion_requested, job
from tests.fakes import FakeDeltas, OpenGuard


class FakeProvider:
    """Answers, or raises, one of `replies` after the other."""

    name, model = "openai", "m"
    capabilities = Capabilities(frozenset({"temperature", "top_p", "max_tokens"}))

    def __init__(self, *replies: Completion | Exception) -> None:
        self.replies, self.requests = list(replies), list[CompletionRequest]()

    async def complete(self, request: CompletionRequest) -> Completion:
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def stream(self, request: CompletionRequest, on_delta: Any) -> Completion:
        completion = await self.complete(request)
        await on_delta(completion.text)
        return completion

    async def models(self) -> tuple[str, ...]:
        return (self.model,)


def completion(text: str = "Because.", **overrides: Any) -> Completion:
    fields: dict[str, Any] = {"text": text, "model": "m-1", "finish_reason": "stop", "usage": Usage(1, 2, 3)}
    return Completion(**fields | overrides)


async def ran(
    *replies: Completion | Exception,
    limits: Limits | None = None,
    event=None,
    fall_over: FallOver | None = None,
    **options: Any,
):
    provider, fall_over = FakeProvider(*replies), fall_over or FallOver()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def stage(event, *, now):
        return await generate_completion(
            event, provider=provider, deltas=FakeDeltas(), guard=OpenGuard(), fall_over=fall_over,
            max_response_chars=100, now=now,
        )  # fmt: skip

    event = event or completion_requested()
    result = await run_stage(
        stage, event, job=event.job, target=event.provider, limits=limits or Limits(3, 30, 3600), now=lambda: NOW,
        sleep=sleep, random=Random(1), onward=fall_over.of(event), **options,
    )  # fmt: skip
    return result, provider, waits


def outcome(result) -> JobFinished:
    assert isinstance(result, Emit)
    (event,) = result.events
    assert isinstance(event, JobFinished)
    return event


async def test_an_answer_becomes_the_body_that_the_waiting_call_answers() -> None:
    event = completion_requested(request=chat_request("Why?", instruction="short"))
    result, provider, _ = await ran(completion(), event=event)
    finished = outcome(result)
    assert finished.result == {
        "model": "m-1", "prompt": "Why?", "generation_config": {},
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        "result": {"text": "Because.", "finish_reason": "stop"},
        "meta": {
            "provider": "openai", "job_id": str(event.job.job_id),
            "attempts": [{"provider": "openai", "ms": finished.attempts[0].ms}],
        },
    }  # fmt: skip
    assert provider.requests[0].instruction == "short"


async def test_what_postgres_cannot_hold_is_left_out_of_an_answer() -> None:
    result, _, _ = await ran(completion("Be\x00cau\ud800se.", model="m\x00-1"))
    told = outcome(result).result or {}
    assert (told["result"]["text"], told["model"]) == ("Because.", "m-1")
    outcome(result).model_dump_json()


async def test_an_answer_that_the_provider_withholds_is_a_fallback() -> None:
    result, _, _ = await ran(completion(" ", finish_reason="content_filter"))
    told = outcome(result).result or {}
    assert (outcome(result).status, told["status"], told["confidence"]) == ("completed", "fallback", "low")
    assert told["answer"]
    assert told["meta"]["attempts"]


async def test_a_parameter_that_the_provider_has_not_is_refused_by_name_before_it_is_asked() -> None:
    asked_for = GenerationConfig(temperature=0.5, top_k=5, mode="lora")
    event = completion_requested(request=chat_request(generation_config=asked_for))
    result, provider, _ = await ran(completion(), event=event)
    error = outcome(result).error
    assert error is not None
    assert error.code == "unsupported-parameter"
    assert "openai does not have the parameters top_k, mode:" in error.message
    assert provider.requests == []


async def test_it_is_left_out_with_a_note_where_that_is_allowed() -> None:
    asked_for = GenerationConfig(
        temperature=0.5, top_k=5, mode="base", response_format=ResponseFormat(type="json_object"), strict=False
    )
    event = completion_requested(request=chat_request(generation_config=asked_for))
    result, provider, _ = await ran(completion(), event=event)
    assert (outcome(result).result or {})["meta"]["dropped"] == ["top_k", "response_format.json_object"]
    assert provider.requests[0].generation == GenerationConfig(temperature=0.5, mode="base", strict=False)


async def test_a_blank_completion_is_a_dead_letter() -> None:
    result, _, _ = await ran(completion(" \n"))
    assert isinstance(result, DeadLetter)
    assert result.code == "empty-completion"


async def test_a_long_answer_is_cut_and_said_to_be() -> None:
    result, _, _ = await ran(completion("x" * 101))
    body = outcome(result).result
    assert body is not None
    assert body["result"] == {"text": "x" * 100, "finish_reason": "length"}


async def test_a_failure_that_may_pass_is_tried_again_and_every_try_is_told() -> None:
    told: list[tuple[int, str]] = []

    async def on_retry(attempt: int, code: str) -> None:
        told.append((attempt, code))

    away = RetryableError("provider-unreachable", "away")
    result, _, waits = await ran(away, away, completion(), on_retry=on_retry)
    assert [attempt.code for attempt in outcome(result).attempts] == ["provider-unreachable"] * 2 + [None]
    assert told == [(1, "provider-unreachable"), (2, "provider-unreachable")]
    assert 0.125 <= waits[0] <= 0.375
    assert 0.25 <= waits[1] <= 0.75


async def test_retry_waits_as_long_as_the_provider_asked() -> None:
    _, _, waits = await ran(RetryableError("provider-http-429", "slow down", retry_after_s=7), completion())
    assert waits == [7]


async def test_tries_that_run_out_and_a_wait_that_is_too_long_are_put_off() -> None:
    away = RetryableError("provider-unreachable", "away")
    result, _, waits = await ran(*[away] * 4)
    assert isinstance(result, Later)
    assert (result.code, result.message, len(result.attempts), len(waits)) == ("provider-unreachable", "away", 4, 3)
    assert 30 <= result.wait_s <= 37.5
    result, _, waits = await ran(RetryableError("provider-http-429", "slow down", retry_after_s=60))
    assert isinstance(result, Later)
    assert (result.code, len(result.attempts), waits) == ("provider-http-429", 1, [])
    assert 60 <= result.wait_s <= 75


async def test_each_long_wait_is_longer_up_to_a_bound() -> None:
    waits = []
    for retry in range(6):
        limits = Limits(0, 30, 3600, long_first_s=30)
        result, _, _ = await ran(RetryableError("provider-http-503", "busy"), limits=limits, past=Past(retry))
        assert isinstance(result, Later)
        waits.append(result.wait_s)
    for wait, least in zip(waits, (30, 60, 120, 300, 300, 300), strict=True):
        assert least <= wait <= 1.25 * least


@pytest.mark.parametrize(("expires_in_s", "retry_after_s"), [(30, None), (3600, 3600), (1, 0.1)])
async def test_a_wait_that_the_job_would_not_outlive_is_a_dead_letter_at_once(expires_in_s, retry_after_s) -> None:
    error = RetryableError("provider-http-503", "busy", retry_after_s=retry_after_s)
    result, provider, _ = await ran(error, limits=Limits(0, 30, expires_in_s))
    assert isinstance(result, DeadLetter)
    assert (result.code, result.retry_after_s, len(provider.requests)) == ("provider-http-503", retry_after_s, 1)


async def test_a_quick_wait_that_would_outlast_the_works_time_is_not_begun() -> None:
    error = RetryableError("provider-http-429", "slow down", retry_after_s=7)
    result, _, waits = await ran(error, limits=Limits(3, 5, 3600))
    assert isinstance(result, Later)  # and not `timeout`, after which nothing is tried again
    assert waits == []


@pytest.mark.parametrize("error", [PermanentError("provider-http-401", "no"), KeyError("a bug")])
async def test_what_would_fail_again_is_never_put_off(error: Exception) -> None:
    result, _, _ = await ran(error)
    assert isinstance(result, DeadLetter)


async def test_all_tries_are_told_and_at_most_fifty() -> None:
    told: list[int] = []

    async def on_retry(attempt: int, code: str) -> None:
        told.append(attempt)

    earlier = tuple(Attempt(provider="openai", code=f"provider-http-{500 + n}", ms=n) for n in range(48))
    away = RetryableError("provider-unreachable", "away")
    result, _, _ = await ran(away, completion(), past=Past(1, earlier[:3]), on_retry=on_retry)
    finished = outcome(result)
    codes = [attempt.code for attempt in finished.attempts]
    assert codes == ["provider-http-500", "provider-http-501", "provider-http-502", "provider-unreachable", None]
    assert finished.result is not None
    assert [attempt.get("code") for attempt in finished.result["meta"]["attempts"]] == codes
    assert told == [4]
    for replies in ([away] * 4, [PermanentError("provider-http-401", "no")] * 4):
        result, _, _ = await ran(*replies, past=Past(1, earlier))
        assert isinstance(result, (Later, DeadLetter))
        assert len(result.attempts) <= 50
        assert result.attempts[-1].code == replies[0].code


@pytest.mark.parametrize(
    ("status", "passing"), [(408, True), (409, True), (429, True), (500, True), (529, True), (400, False), (404, False)]
)
def test_which_answers_may_pass(status: int, passing: bool) -> None:
    assert is_passing_status(status) is passing


async def test_a_refusal_is_not_tried_again() -> None:
    result, provider, _ = await ran(PermanentError("provider-http-401", "no"))
    assert isinstance(result, DeadLetter)
    assert (result.code, len(provider.requests)) == ("provider-http-401", 1)


async def test_a_bug_is_a_dead_letter_and_never_an_exception() -> None:
    result, _, _ = await ran(KeyError("oops"))
    assert isinstance(result, DeadLetter)
    assert result.code == "unexpected-error"
    assert "oops" not in result.reason

    def plain(event, *, now):
        raise KeyError("oops")

    assert isinstance(run_plain_stage(plain, completion_requested(), now=NOW), DeadLetter)


async def test_work_that_takes_too_long_is_cancelled_and_ends_the_job() -> None:
    cancelled = asyncio.Event()

    async def hangs(event, *, now):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Drop("never")

    event = completion_requested()
    result = await run_stage(
        hangs, event, job=event.job, target="openai", limits=Limits(3, 0.01, 3600), now=lambda: NOW
    )  # fmt: skip
    finished = outcome(result)
    assert finished.error is not None
    assert finished.error.code == "timeout"
    assert [attempt.code for attempt in finished.attempts] == ["timeout"]
    assert cancelled.is_set()


async def test_expired_work_is_never_begun() -> None:
    result, provider, _ = await ran(completion(), limits=Limits(3, 30, -0.1))
    finished = outcome(result)
    assert finished.error is not None
    assert finished.error.code == "expired"
    assert provider.requests == []


async def test_cancelling_is_passed_on() -> None:
    async def hangs(event, *, now):
        await asyncio.Event().wait()
        return Drop("never")

    event = completion_requested(job=job(expires_at=NOW + timedelta(hours=1)))
    task = asyncio.create_task(
        run_stage(hangs, event, job=event.job, target="x", limits=Limits(0, 60, 60), now=lambda: NOW)
    )  # fmt: skip
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_is_told_as_it_comes_and_says_where() -> None:
    told = StreamedRange(execution=uuid4(), partition=1, first_offset=2, last_offset=3)
    deltas = FakeDeltas(told)
    result = await generate_completion(
        completion_requested(), provider=FakeProvider(completion("x" * 120)), deltas=deltas, guard=OpenGuard(),
        fall_over=FallOver(), max_response_chars=100, now=NOW,
    )  # fmt: skip
    assert outcome(result).stream == told
    (execution,) = deltas.executions
    assert (execution.pieces, execution.max_chars) == (["x" * 120], 100)
    assert execution.ended == "x" * 100  # as the answer is kept
    assert execution.left


@pytest.mark.parametrize("reply", [completion(" \n"), RetryableError("provider-unreachable", "away")])
async def test_what_was_told_of_no_answer_is_void(reply: Completion | Exception) -> None:
    deltas = FakeDeltas()
    with contextlib.suppress(RetryableError):
        await generate_completion(
            completion_requested(), provider=FakeProvider(reply), deltas=deltas, guard=OpenGuard(),
            fall_over=FallOver(), max_response_chars=100, now=NOW,
        )  # fmt: skip
    (execution,) = deltas.executions
    assert execution.left
    assert execution.ended is None
