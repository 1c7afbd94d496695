"""A process that dies at every point of a run at which it touches anything: the same event comes again, and it goes on.

What was stored is never asked for again; between an effect and its row there is one moment, and what is made twice then
has the same key.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from processors.ports import Completion, CompletionRequest
from processors.run_tool import CALL_IN_HAND
from processors.stage import Later
from schemas.events import JobFinished
from tests.agents_scene import FakeCalls, MemorySteps, Scene, ScriptedModel, answer_of, call, finish, requested

GET_URL, POST_URL = "https://api.example/orders/1", "https://api.example/orders"


class Killed(BaseException):
    """As if there were no process any more: nobody catches it."""


class Point:
    """Dies once, at the n-th thing that is touched, before or after it has happened."""

    def __init__(self, n: int, *, is_after: bool) -> None:
        self.n, self.is_after, self.passed = n, is_after, 0
        self.at, self.place, self.times = "", 0, Counter[str]()

    def __call__(self, name: str, *, is_after: bool) -> None:
        if is_after != self.is_after:
            return
        self.passed += 1
        self.times[name] += 1
        if self.passed == self.n:
            self.at = f"{'after' if is_after else 'before'} {name}"
            self.place = self.times[name]
            raise Killed


def mortal(kind: type, point: Point, *names: str) -> type:
    """The same class, whose methods are points."""

    def around(name: str) -> Callable[..., Any]:
        plain = getattr(kind, name)

        async def method(self: Any, *given: Any, **more: Any) -> Any:
            point(name, is_after=False)
            result = await plain(self, *given, **more)
            point(name, is_after=True)
            return result

        return method

    return type(kind.__name__, (kind,), {name: around(name) for name in names})


class Oracle(ScriptedModel):
    """The same question has the same answer, however often it is asked."""

    async def complete(self, request: CompletionRequest) -> Completion:
        made = request.prompt.count("Observation:")
        self.says.appendleft(
            [
                call("external_api", url=GET_URL),
                call("external_api", method="POST", url=POST_URL, body={"of": 1}),
                call("summary"),
                finish("done"),
            ][made]
        )
        return await super().complete(request)


async def lived(point: Point) -> tuple[Scene, JobFinished]:
    """A run to its end, each event again after a death; its user approves."""
    steps = mortal(MemorySteps, point, "get", "plan", "observe", "ask", "claim")()
    calls = mortal(FakeCalls, point, "call")({GET_URL: '{"state": "open"}'})
    scene = Scene(mortal(Oracle, point, "complete")(), steps=steps, calls=calls)
    event: Any = requested(max_steps=6)
    while not isinstance(event, JobFinished):
        try:
            following = await scene.one(event)
        except Killed:
            continue
        if isinstance(following, Later) and following.code == CALL_IN_HAND:
            steps.claims.clear()  # as long as its wait, so was the claim of the one who died
        elif isinstance(following, Later):
            steps.decide(event.step, "approved")
        else:
            event = following
    return scene, event


async def everything() -> Point:
    """What is touched by a run that nothing happens to."""
    point = Point(0, is_after=True)
    await lived(point)
    return point


async def test_so_many_points_there_are() -> None:
    """Four steps: each is looked up, asked for, stored, looked up, run and stored; two are claimed and call
    out, one is approved."""
    assert (await everything()).passed == 4 * 5 + 2 * 2 + 1 + 1


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("n", range(1, 27))
async def test_a_run_goes_on_wherever_its_process_dies(n: int, is_after: bool) -> None:
    point = Point(n, is_after=is_after)
    scene, finished = await lived(point)
    assert point.at, "nobody has died"
    assert answer_of(finished) == "done"
    asked_twice = point.at in ("after complete", "before plan")
    called_twice = point.at == "after call" or (point.at == "before observe" and point.place <= 2)
    assert len(scene.model.asked) == 4 + asked_twice
    assert sorted(Counter(made[:2] for made in scene.calls.made).values()) == [1, 1 + called_twice]
    keys = {made[3]["idempotency-key"] for made in scene.calls.made if made[0] == "POST"}
    assert len(keys) == 1
    assert len(scene.steps.rows) == 4
    told = [(one.planned.action, one.observed is not None) for _, one in sorted(scene.steps.rows.items())]
    assert told == [("external_api", True), ("external_api", True), ("summary", True), ("finish", True)]
