"""Which queries one answer is enough for: by rules, by a model where they cannot tell, and how often that is right."""

from typing import Any

import pytest

from bench.smart_quality.__main__ import measured
from processors.agents.classify_query import by_rules
from processors.agents.decide_query import decide_query
from processors.stage import DeadLetter, Emit
from schemas.events import AgentStepRequested, CompletionRequested
from schemas.requests import AgentRequest, ChatRequest, SmartRequest
from tests.agents_scene import MemorySteps, OpenTurns, ScriptedModel, requested
from tests.factories import job, job_admitted
from tests.processors.test_route_job import routed

SIMPLE, COMPLEX = "What is the capital of France?", "Search my contracts, then compare them and draft a letter."
UNSURE = "Open the letter and send it."


@pytest.mark.parametrize("name", ["tuning", "held-out"])
def test_nine_of_ten_are_told_apart_by_rules_alone(name: str) -> None:
    accuracy, sure, _ = measured(name)
    assert accuracy >= 0.9
    assert sure >= 0.75


def smart(query: str, **more: Any) -> list[Any]:
    request = SmartRequest(query=query, **more)
    return list(routed(job_admitted(job=job(kind="smart"), request=request)))


def test_a_simple_query_is_one_completion_that_says_why() -> None:
    wanted = smart(SIMPLE, provider="local", timeout=7)[0]
    assert isinstance(wanted, CompletionRequested)
    assert wanted.request == ChatRequest(prompt=SIMPLE, provider="local", timeout=7)
    assert (wanted.provider, wanted.timeout_s) == ("local", 7)
    assert wanted.decision == by_rules(SIMPLE)
    assert wanted.decision is not None
    assert (wanted.decision.kind, wanted.decision.by) == ("SIMPLE", "rules")


def test_a_complex_query_is_an_agents() -> None:
    wanted = smart(COMPLEX, agent_id="lawyer")[0]
    assert isinstance(wanted, AgentStepRequested)
    assert (wanted.request.goal, wanted.request.agent_id, wanted.is_undecided) == (COMPLEX, "lawyer", False)
    assert wanted.state.decision is not None
    assert wanted.state.decision.kind == "COMPLEX"


def test_an_agents_goal_is_its_first_step() -> None:
    request = AgentRequest(goal="g", agent_id="a", provider="local")
    wanted = routed(job_admitted(job=job(kind="agent"), request=request))[0]
    assert isinstance(wanted, AgentStepRequested)
    assert (wanted.step, wanted.provider, wanted.request) == (1, "local", request)


@pytest.mark.parametrize(
    ("said", "kind", "by"),
    [
        ("SIMPLE", "SIMPLE", "model"),
        ("This one is complex.", "COMPLEX", "model"),
        ("COMPLEX, not SIMPLE", "COMPLEX", "model"),
        ("I cannot tell.", "SIMPLE", "rules"),
    ],
)
async def test_where_rules_cannot_tell_a_model_is_asked_once(said: str, kind: str, by: str) -> None:
    assert by_rules(UNSURE) is None
    (undecided, _) = smart(UNSURE)
    assert isinstance(undecided, AgentStepRequested)
    assert undecided.is_undecided
    model, steps = ScriptedModel(said), MemorySteps()
    for _ in range(2):  # the same event again asks nobody again
        decided = await decide_query(
            undecided, providers={"openai": model}, guards={"openai": OpenTurns()}, steps=steps
        )  # fmt: skip
    assert UNSURE in model.asked[0].prompt
    if kind == "SIMPLE":
        assert isinstance(decided, Emit)
        (wanted,) = decided.events
        assert isinstance(wanted, CompletionRequested)
        assert wanted.request.prompt == UNSURE
        decision = wanted.decision
    else:
        assert isinstance(decided, AgentStepRequested)
        assert not decided.is_undecided
        assert decided.state.spent.calls == 1
        decision = decided.state.decision
    assert decision is not None
    assert (decision.kind, decision.by) == (kind, by)


async def test_a_provider_that_is_not_here_is_a_dead_letter() -> None:
    result = await decide_query(requested(is_undecided=True), providers={}, guards={}, steps=MemorySteps())
    assert isinstance(result, DeadLetter)
