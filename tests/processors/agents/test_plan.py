"""A step as models write it: as they were told, nearly so, or not at all."""

import json
import time

import pytest

from processors.agents.plan import Plan, parse_plan, storable
from schemas.generation import GenerationConfig
from tests.agents_scene import Scene, ScriptedModel, answer_of, call, finish, requested

SEARCH = Plan("why", "search", {"query": 'a {b} "c"'})
OBJECT = json.dumps({"thought": "why", "action": "search", "action_input": SEARCH.action_input})


@pytest.mark.parametrize(
    "text",
    [
        OBJECT,
        f"```json\n{OBJECT}\n```",
        f"Sure, I will do that!\n{OBJECT}\nLet me know.",
        f"{{not this}} {OBJECT} {{nor that}}",
        OBJECT.replace("action_input", "Action Input").replace("thought", "Thought"),
        OBJECT.replace("action_input", "arguments").replace('"action"', '"tool"'),
        'Thought: why\nAction: search\nAction Input: {"query": "a {b} \\"c\\""}\nObservation: made up',
        '{"thought": "why", "action": {"name": "search", "arguments": {"query": "a {b} \\"c\\""}, "thought": "why"}}',
    ],
)
def test_a_step_is_found_in_what_was_written(text: str) -> None:
    assert parse_plan(text) == SEARCH


def test_a_last_word_needs_no_tools_name() -> None:
    for text in ("Thought: I know.\nFinal Answer: Paris.", '{"thought": "I know.", "final_answer": "Paris."}'):
        assert parse_plan(text) == Plan("I know.", "finish", {"answer": "Paris."})


@pytest.mark.parametrize("text", ["", "I do not know.", "{", "[1, 2]", '{"thought": "x"}', "{" * 100_000, '"' * 50_000,
                                  '{"action": 7}', '{"action": ["search"]}', "null",
                                  '{"action": "search", "action_input": [1]}'])  # fmt: skip
def test_what_says_nothing_to_do_is_no_step(text: str) -> None:
    assert parse_plan(text) is None


def test_what_no_database_holds_is_made_text() -> None:
    given = json.loads('{"a\\u0000": [1e999, 123456789012345678901234567890, true, null, "x\\u0000", 1.5, -3]}')
    assert storable(given) == {"a": ["inf", "123456789012345678901234567890", True, None, "x", 1.5, -3]}
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    json.dumps(storable(deep))


async def test_the_shape_is_forced_where_the_provider_can() -> None:
    scene = Scene(ScriptedModel(finish("x")))
    await scene.to_the_end(requested())
    generation = scene.model.asked[0].generation
    assert generation.response_format is not None
    assert generation.response_format.json_schema is not None
    schema = generation.response_format.json_schema.schema_
    assert schema["properties"]["action"]["enum"] == ["external_api", "summary", "finish"]
    assert (generation.temperature, generation.max_tokens) == (0.0, 2_048)
    objects = Scene(ScriptedModel(finish("x"), can=frozenset({"response_format.json_object", "temperature"})))
    await objects.to_the_end(requested(generation_config=GenerationConfig(temperature=0.7)))
    generation = objects.model.asked[0].generation
    assert generation.response_format is not None
    assert (generation.response_format.type, generation.temperature, generation.max_tokens) == (
        "json_object",
        0.7,
        None,
    )
    free = Scene(ScriptedModel(finish("x"), can=frozenset()))
    await free.to_the_end(requested())
    assert free.model.asked[0].generation == GenerationConfig()


async def test_what_cannot_be_read_is_asked_for_once_more() -> None:
    scene = Scene(ScriptedModel("I would rather chat.", finish("mended"), can=frozenset()))
    assert answer_of(await scene.to_the_end(requested())) == "mended"
    assert "could not be read" in scene.model.asked[1].prompt
    assert "could not be read" not in scene.model.asked[0].prompt


async def test_what_cannot_be_read_twice_is_observed_and_costs_a_step() -> None:
    scene = Scene(ScriptedModel("No.", "No!", finish("at last")))
    finished = await scene.to_the_end(requested())
    assert answer_of(finished) == "at last"
    assert finished.result is not None
    assert (finished.result["meta"]["steps"], finished.result["meta"]["calls"]) == (2, 3)
    assert "You have chosen no tool" in scene.model.asked[2].prompt


async def test_a_bare_text_is_the_one_argument_that_a_tool_needs() -> None:
    scene = Scene(ScriptedModel('{"action": "finish", "action_input": "Paris."}'))
    assert answer_of(await scene.to_the_end(requested())) == "Paris."


async def test_a_parameter_that_the_provider_has_not_ends_the_run() -> None:
    scene = Scene(ScriptedModel(call("summary")))
    finished = await scene.to_the_end(requested(generation_config=GenerationConfig(top_k=3)))
    assert finished.error is not None
    assert finished.error.code == "unsupported-parameter"


@pytest.mark.parametrize(
    "text",
    [
        "No.{}No.", "```{}No.", "```json{}No.", "Thought:{}No.", "Thought: a{}b", "Action: 7\nAction Input: a{}b",
        "Final Answer{}No.",
    ],
)  # fmt: skip
def test_a_model_that_was_talked_into_blank_lines_holds_up_nobody(text: str) -> None:
    long = text.format("\n" * 20_000)
    began = time.process_time()
    parse_plan(long)
    assert time.process_time() - began < 1.0  # each of them took from 10 to 60 s


def test_thoughts_and_names_have_nothing_in_them_that_no_database_holds() -> None:
    wanted = Plan("why", "finish", {"answer": "x"})
    text = r'{"thought": "w\u0000hy\ud800", "action": "fin\u0000ish", "action_input": {"answer": "x\udc00"}}'
    assert parse_plan(text) == wanted
