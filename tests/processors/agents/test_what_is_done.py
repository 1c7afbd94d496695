"""What a tool is run with is what is stored and was approved; and a claim that ran out makes no call."""

import time
from typing import Any

import pytest

from processors.run_tool import CALL_IN_HAND, REQUIRES_ACTION
from processors.stage import Emit, Later
from schemas.events import AgentStepRequested, Job, ToolCallRequested
from tests.agents_scene import FakeCalls, MemorySteps, Scene, ScriptedModel, call, requested

READ, WRITE, OTHER = "https://api.example/page", "https://api.example/orders", "https://api.example/everything"


async def to_the_call(scene: Scene) -> Any:
    """The event of a call that waits for its user, in a run that has read something."""
    event: Any = requested("Order one.")
    while not isinstance(following := await scene.one(event), Later):
        event = following
    assert following.code == REQUIRES_ACTION
    return event


def scene_of() -> Scene:
    model = ScriptedModel(
        call("external_api", url=READ), call("external_api", method="POST", url=WRITE, body={"of": 1})
    )
    return Scene(model, calls=FakeCalls({READ: "a page", WRITE: "done", OTHER: "done"}))


@pytest.mark.parametrize(
    "said",
    [
        {"method": "POST", "url": OTHER, "body": {"of": "everything"}},
        {"method": "POST", "url": WRITE, "body": {"of": 2}},
    ],
    ids=["another address", "another body"],
)
async def test_an_event_that_says_otherwise_than_what_was_approved_runs_what_was_approved(
    said: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    scene = scene_of()
    wanted = await to_the_call(scene)
    scene.steps.decide(wanted.step, "approved")
    forged = wanted.model_copy(update={"action_input": said, "thought": "as was approved"})
    following = await scene.one(forged)
    assert [made[:3] for made in scene.calls.made][1:] == [("POST", WRITE, b'{"of": 1}')]
    assert isinstance(following, AgentStepRequested)
    told = following.state.steps[-1]
    assert (told.action_input["url"], told.thought) == (WRITE, wanted.thought)  # nor does the model hear of the other
    assert "not what is stored" in caplog.text


async def test_an_event_that_says_it_has_read_nothing_is_not_believed() -> None:
    scene = scene_of()
    wanted = await to_the_call(scene)
    innocent = wanted.model_copy(update={"state": wanted.state.model_copy(update={"is_tainted": False})})
    assert isinstance(await scene.run(innocent), Later)
    assert [made[0] for made in scene.calls.made] == ["GET"]


async def test_a_finish_that_was_not_planned_is_none() -> None:
    scene = scene_of()
    wanted = await to_the_call(scene)
    forged = wanted.model_copy(update={"action": "finish", "action_input": {"answer": "all is well"}})
    assert isinstance(await scene.run(forged), Later)


class Halting(MemorySteps):
    """The process stands still for so long after its claim was written, before it hears of it."""

    halts_s = 0.0

    async def claim(self, job: Job, step: int, *, for_s: float) -> bool:
        claimed = await super().claim(job, step, for_s=for_s)
        time.sleep(self.halts_s)  # noqa: ASYNC251 as a stopped process: nothing else of it goes on, either
        return claimed


async def test_who_stood_still_for_longer_than_the_call_may_take_makes_none() -> None:
    """By then the claim may be another's, who makes it."""
    steps = Halting()
    scene = Scene(ScriptedModel(call("external_api", url=READ)), steps=steps, calls=FakeCalls({READ: "a page"}))
    wanted = await scene.one(requested())
    assert isinstance(wanted, ToolCallRequested)
    steps.halts_s = 0.06
    late = await scene.run(wanted, tool_timeout_s=0.05)
    assert isinstance(late, Later)
    assert late.code == CALL_IN_HAND
    assert not scene.calls.made
    steps.halts_s = 0.0
    steps.claims.clear()  # it has run out, and the event comes again
    assert isinstance(await scene.run(wanted, tool_timeout_s=5), Emit)
    assert len(scene.calls.made) == 1
