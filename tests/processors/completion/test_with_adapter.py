"""Which adapter answers: one's own, found by user and name; never another's."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from processors.completion.with_adapter import with_adapter
from processors.errors import PermanentError
from processors.learning.adapter_ports import FoundAdapter
from processors.stage import Emit, StageResult
from schemas.events import AgentStepRequested, CompletionRequested, JobFinished
from schemas.generation import GenerationConfig
from schemas.requests import AgentRequest
from tests.factories import NOW, chat_request, completion_requested, job

LORA = GenerationConfig(mode="lora", adapter="polite")
UNNAMED = GenerationConfig(mode="lora")


class FakeAdapters:
    """`owned`: by user; `last`: who trained last on a server that has one."""

    def __init__(self, owned: dict[str, list[FoundAdapter]] | None = None, last: str | None = None) -> None:
        self.owned, self.last, self.asked = owned or {}, last, 0

    async def ready(self, user_id: str) -> Sequence[FoundAdapter]:
        self.asked += 1
        return self.owned.get(user_id, [])

    async def last_trained_by(self, provider: str) -> str | None:
        self.asked += 1
        return self.last


ALICES = {"alice": [FoundAdapter(UUID(int=7), "polite", "local")]}


async def ran(event: Any, adapters: FakeAdapters | None) -> tuple[StageResult, list[Any]]:
    calls: list[Any] = []

    async def stage(event: Any, **more: Any) -> StageResult:
        calls.append(more)
        return Emit(())

    return await with_adapter(event, stage=stage, adapters=adapters, now=NOW, images=()), calls


def asked(
    generation: GenerationConfig, *, user: str = "alice", at: str = "local", **request: Any
) -> CompletionRequested:
    return completion_requested(
        job=job(user_id=user), provider=at, request=chat_request(generation_config=generation, **request)
    )


def error_of(result: StageResult) -> Any:
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    return finished.error


async def test_ones_own_adapter_answers_by_its_id() -> None:
    _, calls = await ran(asked(LORA), FakeAdapters(ALICES))
    assert calls == [{"now": NOW, "adapter_id": str(UUID(int=7)), "images": ()}]


async def test_who_asks_for_none_is_looked_up_nowhere() -> None:
    adapters = FakeAdapters(ALICES)
    for generation in (GenerationConfig(), GenerationConfig(mode="base")):
        _, calls = await ran(asked(generation), adapters)
        assert calls == [{"now": NOW, "images": ()}]
    _, calls = await ran(asked(UNNAMED, at="openai"), None)  # which refuses it by itself
    assert len(calls) == 1
    assert adapters.asked == 0


async def test_anothers_adapter_is_as_one_that_there_is_not() -> None:
    result, calls = await ran(asked(LORA, user="bob"), FakeAdapters(ALICES))
    error = error_of(result)
    assert (error.code, calls) == ("no-such-adapter", [])
    assert "those that can are: none" in error.message
    unknown = GenerationConfig(mode="lora", adapter="rude")
    assert "polite (local)" in error_of((await ran(asked(unknown), FakeAdapters(ALICES)))[0]).message


async def test_a_job_without_a_provider_goes_to_the_one_whose_adapter_it_is() -> None:
    event = asked(LORA, at="openai")
    result, calls = await ran(event, FakeAdapters(ALICES))
    assert isinstance(result, Emit)
    assert result.events == (event.model_copy(update={"provider": "local"}),)
    assert calls == []
    named = await ran(asked(LORA, at="openai", provider="openai"), FakeAdapters(ALICES))
    assert "is of the provider local, not of openai" in error_of(named[0]).message


async def test_an_agents_step_goes_the_same_way() -> None:
    request = AgentRequest(goal="g", agent_id="a", generation_config=LORA)
    step = AgentStepRequested(job=job(kind="agent"), provider="openai", request=request, timeout_s=9)
    result, _ = await ran(step, FakeAdapters(ALICES))
    assert isinstance(result, Emit)
    assert result.events == (step.model_copy(update={"provider": "local"}),)


@pytest.mark.parametrize(("last", "answers"), [(None, True), ("alice", True), ("bob", False)])
async def test_what_a_shared_server_has_learnt_of_another_answers_nobody_else(last: str | None, answers: bool) -> None:
    result, calls = await ran(asked(UNNAMED, at="qwen3vl"), FakeAdapters(last=last))
    assert bool(calls) is answers
    if not answers:
        assert error_of(result).code == "no-such-adapter"


async def test_the_local_model_wants_a_name() -> None:
    assert "name yours as generation_config.adapter" in error_of((await ran(asked(UNNAMED), FakeAdapters()))[0]).message


async def test_without_a_database_nobody_is_answered_by_an_adapter() -> None:
    for event in (asked(LORA), asked(UNNAMED, at="qwen3vl")):
        with pytest.raises(PermanentError) as caught:
            await ran(event, None)
        assert caught.value.code == "no-adapter-store"
