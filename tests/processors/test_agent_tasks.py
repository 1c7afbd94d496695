"""The thirty goals of `bench.agent_tasks`: a model that plays perfectly reaches all of them, and nothing else does."""

from collections import Counter

from bench.agent_tasks.__main__ import reached
from bench.agent_tasks.runs import Bounds, PerfectModel
from bench.agent_tasks.tasks import TASKS
from processors.ports import Completion, CompletionRequest, Usage
from tests.agents_scene import finish


class Mute(PerfectModel):
    """Says at once that it knows nothing, in a few words that are in every goal."""

    async def complete(self, request: CompletionRequest) -> Completion:
        said = finish("It is not to be found in my documents, nor by GET of 127.0.0.1.")
        return Completion(said, self.model, "stop", Usage(1, 1, 2))


async def test_a_perfect_model_reaches_all_goals_through_the_stages_and_their_tools() -> None:
    found = await reached(PerfectModel(TASKS), Bounds())
    assert [(one.task.goal, one.said) for one in found if not one.is_reached] == []
    assert Counter(one.task.kind for one in found) == {"lookup": 8, "api": 8, "arithmetic": 6, "steps": 8}
    assert all(one.steps == one.calls == len(one.task.moves) for one in found)


async def test_who_has_read_nothing_reaches_none() -> None:
    assert [one.task.goal for one in await reached(Mute(TASKS), Bounds()) if one.is_reached] == []


def test_the_answer_to_one_goal_is_none_to_another() -> None:
    for task in TASKS:
        assert task.is_reached(f"So: {' and '.join(task.wanted)}.")
        others = [" ".join(one.wanted) for one in TASKS if not set(one.wanted) & set(task.wanted)]
        assert not [answer for answer in others if task.is_reached(answer)]
