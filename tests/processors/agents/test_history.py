"""What a run has done so far: how much of it rides in its events, and how much of it the model is told."""

import json
from typing import Any

import pytest

from processors.agents.history import MAX_STATE_BYTES, MAX_WHOLE_STEPS, bounded, redeemed
from processors.agents.ports import Observed, PlannedStep, StoredStep
from processors.errors import PermanentError
from processors.filter.normalize_text import clean
from schemas.events import AgentState, AgentStep, AgentStepRequested
from tests.agents_scene import (
    ORDER,
    FakeCalls,
    Scene,
    ScriptedModel,
    answer_of,
    call,
    finish,
    get,
    requested,
)


async def test_over_six_steps_the_oldest_are_a_digest() -> None:
    says = [call("summary", text=f"Fact number {n}. More.") for n in range(8)]
    scene = Scene(ScriptedModel(*says, finish("x")))
    event: Any = requested(max_steps=20)
    for _ in range(16):
        event = await scene.one(event)
    assert isinstance(event, AgentStepRequested)
    assert len(event.state.steps) == MAX_WHOLE_STEPS
    assert event.state.digest.splitlines()[0].startswith('1. summary {"text": "Fact number 0. More."} -> Fact number 0')
    assert "Fact number 0" in (scene.model.asked[7].prompt + event.state.digest)
    await scene.to_the_end(event)
    assert "Your earlier steps, in short" in scene.model.asked[8].prompt


@pytest.mark.parametrize("char", ["x", "ы", "日", "\\", "\x01"])
def test_what_rides_in_an_event_is_bounded(char: str) -> None:
    """However wide its letters are written."""
    given = {
        "text": char * (60_000 // (len(json.dumps(char, ensure_ascii=False).encode()) - 2))
    }  # as plans are bounded
    observed = clean(char * 8_100)
    steps = tuple(
        AgentStep(step=n, thought=char * 4_000, action="a", action_input=given, observation=observed)
        for n in range(1, 9)
    )  # fmt: skip
    state = bounded(AgentState(steps=steps))
    assert len(state.model_dump_json().encode()) <= MAX_STATE_BYTES
    assert state.steps[-1].step == 8
    assert state.digest


@pytest.mark.parametrize("steps", [3, 8])
def test_only_what_has_no_room_is_left_behind(steps: int) -> None:
    state = bounded(
        AgentState(steps=tuple(AgentStep(step=n, thought="", action="a", observation="о") for n in range(1, steps + 1)))
    )
    room = len(state.model_dump_json().encode()) + 26  # with the numbers of six steps
    assert bounded(state, max_bytes=room) is state
    assert bounded(state, max_bytes=room - 1).claimed == (state.steps[0].step,)


async def test_steps_too_large_for_an_event_are_named_there_and_told_whole_all_the_same() -> None:
    """What stands in the newest six steps reaches the model, whatever rides in the event."""
    facts = [f"fact number {n}" for n in range(9)]
    says = [call("summary", text=f"{fact}: {'x' * 15_000}. ", why=1) for fact in facts]  # inputs that no tool takes
    scene = Scene(ScriptedModel(*(one.replace('"why": 1', f'"why": "{"y" * 45_000}"') for one in says), finish("x")))
    event: Any = requested(max_steps=20)
    most = 0
    for _ in range(18):
        event = await scene.one(event)
        most = max(most, len(event.state.model_dump_json()))
    assert most <= MAX_STATE_BYTES
    assert event.state.claimed == (4, 5, 6, 7)
    assert [step.step for step in event.state.steps] == [8, 9]
    assert [line.split(".")[0] for line in event.state.digest.splitlines()] == ["1", "2", "3"]
    before, last = event, await scene.one(event)
    asked = scene.model.asked[-1].prompt
    assert [asked.count(f"{fact}: xxx") for fact in facts] == [1] * 9  # of the first three their beginning
    assert [asked.count(f"Step {n}: ") for n in range(1, 10)] == [0] * 3 + [1] * 6
    assert last.state.claimed == (4, 5, 6, 7)
    assert answer_of(await scene.one(last)) == "x"
    # A redrive goes on with what an earlier run has stored, and a job that was deleted with what there is.
    again = before.model_copy(update={"job": before.job.model_copy(update={"run": 2})})
    assert await redeemed(before.state, again.job, scene.steps) == await redeemed(before.state, before.job, scene.steps)
    scene.steps.rows.clear()
    assert [step.step for step in (await redeemed(before.state, before.job, scene.steps)).steps] == [8, 9]


async def test_a_summary_of_what_was_observed_is_of_all_of_it() -> None:
    sentence = "The warehouse has packed the order and the parcel left on Tuesday. "
    scene = Scene(ScriptedModel(call("summary", sentences=1)))
    steps = tuple(
        AgentStep(step=n, thought="", action="a", action_input={"x": "y" * 60_000}, observation=said)
        for n, said in ((1, sentence * 3), (2, "Nothing."), (3, "Nothing."))
    )  # fmt: skip
    event: Any = requested(step=4, state=bounded(AgentState(steps=steps)))
    assert event.state.claimed == (1,)
    for step in steps:
        planned = PlannedStep("", "a", step.action_input)
        scene.steps.rows[event.job.job_id, 1, step.step] = StoredStep(planned, Observed(step.observation))
    following = await scene.one(await scene.one(event))
    assert following.state.steps[-1].observation == sentence.strip()


async def test_what_is_too_long_for_the_model_is_asked_with_less() -> None:
    too_long = PermanentError("context-too-long", "too long")
    scene = Scene(ScriptedModel(get(), too_long, finish("short")), calls=FakeCalls({ORDER: "word " * 1_000}))
    assert answer_of(await scene.to_the_end(requested())) == "short"
    assert len(scene.model.asked[2].prompt) < len(scene.model.asked[1].prompt) / 3
    with pytest.raises(PermanentError):
        await Scene(ScriptedModel(too_long, too_long)).plan(requested())
