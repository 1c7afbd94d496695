"""What of `generation_config` is taken, and what is refused before anything is published."""

import json
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from schemas.events import JobRequested
from schemas.generation import LARGEST_INT, MAX_JSON_DEPTH, MAX_JSON_SCHEMA_CHARS, GenerationConfig
from schemas.requests import (
    MAX_EMBEDDED_TEXTS,
    MAX_HISTORY_CHARS,
    MAX_TURNS,
    AgentRequest,
    ChatRequest,
    DocumentReference,
    DocumentRequest,
    EmbeddingRequest,
    ExampleRequest,
    RagRequest,
    SearchRequest,
    SmartRequest,
    SpeechRequest,
    TrainingRequest,
)


def config(**given: Any) -> GenerationConfig:
    return GenerationConfig.model_validate_json(json.dumps(given))


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 2, 0.7], [-0.1, 2.1, "1", True]),
        ("top_p", [0, 1], [-0.1, 1.1, "1"]),
        ("max_tokens", [1, 8192], [0, 8193, 1.5, "7", True]),
        ("top_k", [1, 1000], [0, 1001, 2.5]),
        ("seed", [0, 2**31 - 1], [-1, 2**31, 1.5, "7"]),
        ("stop", ["END", ["a", "b", "c", "d"]], [[], "", ["a"] * 5, ["x" * 101], [""], 7, [7]]),
        ("presence_penalty", [-2, 2], [-2.1, 2.1, "0"]),
        ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
        ("repetition_penalty", [0.1, 2], [0, 2.1, -1]),
        ("mode", ["base", "lora"], ["other", 1]),
        ("strict", [True, False], ["false", 0]),
        ("response_format", [{"type": "text"}, {"type": "json_object"}], [
            {"type": "xml"}, {"type": "json_schema"}, {"type": "text", "more": 1}, "json_object",
            {"type": "json_object", "json_schema": {"schema": {}}},
        ]),
    ],
)  # fmt: skip
def test_a_parameter_has_its_range(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert getattr(config(**{name: value}), name) is not None
    for value in bad:
        with pytest.raises(ValidationError):
            config(**{name: value})


@pytest.mark.parametrize("name", ["temprature", "max_new_tokens", "n", "tools", "model"])
def test_an_unknown_name_is_refused_with_that_name(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        config(**{name: 1})


@pytest.mark.parametrize(
    "value",
    [
        nested(MAX_JSON_DEPTH + 1), {"a": "\x00"}, {"\x00": 1}, {"a": [LARGEST_INT + 1]}, {"a": 10**400},
        {"description": "x" * MAX_JSON_SCHEMA_CHARS}, [1],
    ],
    ids=["deep", "nul", "nul-name", "large", "huge", "long", "list"],
)  # fmt: skip
def test_a_schema_that_not_everybody_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        config(**schema(value))


def test_neither_are_numbers_that_json_does_not_have() -> None:
    for text in ("1e400", "NaN", "Infinity"):
        body = json.dumps(schema({"maximum": "?"})).replace('"?"', text)
        with pytest.raises(ValidationError):
            GenerationConfig.model_validate(json.loads(body))
    with pytest.raises(ValidationError):
        GenerationConfig.model_validate(schema({"a": "\ud800"}))


def test_a_request_of_before_is_still_one_and_travels_as_it_did() -> None:
    """Workers of the version before refuse names that they do not know: none is said that was not given."""
    given = {"prompt": "Why?", "generation_config": {"temperature": 0.5, "top_p": 1.0, "max_tokens": 9}}
    requested = JobRequested.model_validate_json(json.dumps({"user_id": "a", "kind": "chat", "request": given}))
    assert json.loads(requested.model_dump_json(exclude_none=True))["request"] == given


@pytest.mark.parametrize(
    "more",
    [
        {"model": "m-1"}, {"history": []}, {"history": [{"role": "system", "text": "x"}]},
        {"history": [{"role": "user", "text": ""}]}, {"history": [{"role": "user", "text": "x", "name": "y"}]},
        {"history": [{"role": "user", "text": "x" * (MAX_HISTORY_CHARS // 2 + 1)}] * 2},
        {"history": [{"role": "user", "text": "x"}] * (MAX_TURNS + 1)},
    ],
)  # fmt: skip
def test_a_conversation_has_its_bounds_and_a_model_its_provider(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({"prompt": "Why?", **more})
    good = {"model": "m-1", "provider": "openai", "history": [{"role": "assistant", "text": "Hello."}]}
    assert ChatRequest.model_validate({"prompt": "Why?", **good}).model_dump(mode="json", exclude_unset=True)["model"]


def test_a_schema_travels_as_it_came() -> None:
    wanted = schema({"type": "object", "properties": {"a": {"enum": [None, 1], "default": None}}})
    request = ChatRequest.model_validate_json(json.dumps({"prompt": "Why?", "generation_config": wanted}))
    wanted["response_format"]["json_schema"]["name"] = "answer"
    assert json.loads(request.model_dump_json(exclude_none=True))["generation_config"] == wanted


def test_what_is_asked_for_is_named() -> None:
    assert config().named() == config(mode="base", response_format={"type": "text"}, strict=False).named() == ()
    wanted = config(seed=1, temperature=0, mode="lora", response_format={"type": "json_object"})
    assert wanted.named() == ("temperature", "seed", "mode", "response_format.json_object")
    assert wanted.without(["mode", "response_format.json_object"]) == config(seed=1, temperature=0)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [("embedding", {"prompt": "Why?"}), ("chat", {"texts": ["a"]}), ("embedding", {"texts": []}),
     ("embedding", {"texts": ["a", ""]}), ("embedding", {"texts": ["a"], "prompt": "Why?"}), ("chat", None),
     ("embedding", {"texts": ["x"] * (MAX_EMBEDDED_TEXTS + 1)}), ("search", {"texts": ["a"]})],
)  # fmt: skip
def test_a_request_is_one_of_its_kind(kind: str, request_: Any) -> None:
    good = {"user_id": "a", "kind": "embedding", "request": {"texts": ["a", "b"]}}
    assert JobRequested.model_validate_json(json.dumps(good)).request == EmbeddingRequest(texts=("a", "b"))
    with pytest.raises(ValidationError):
        JobRequested.model_validate_json(json.dumps({"user_id": "a", "kind": kind, "request": request_}))


@pytest.mark.parametrize(
    ("kind", "request_", "expected"),
    [("rag", {"question": "Why?"}, RagRequest(question="Why?")),
     ("search", {"query": "why", "top_k": 3, "mode": "dense"}, SearchRequest(query="why", top_k=3, mode="dense")),
     ("document", {"document": {"payload_id": str(UUID(int=1))}, "source": "a.pdf"},
      DocumentRequest(document=DocumentReference(payload_id=UUID(int=1)), source="a.pdf")),
     ("chat", {"prompt": "Why?"}, ChatRequest(prompt="Why?")),
     ("speech", {"prompt": "Why?"}, SpeechRequest(prompt="Why?")),
     ("speech", {"prompt": "Why?", "speaker": "Joe"}, SpeechRequest(prompt="Why?", speaker="Joe")),
     ("smart", {"query": "Why?"}, SmartRequest(query="Why?")),
     ("smart", {"query": "Why?", "agent_id": "a"}, SmartRequest(query="Why?", agent_id="a")),
     ("search", {"query": "Why?"}, SearchRequest(query="Why?")),
     ("agent", {"goal": "Find it", "agent_id": "a"}, AgentRequest(goal="Find it", agent_id="a")),
     ("example", {"instruction": "a", "output": "b"}, ExampleRequest(instruction="a", output="b")),
     ("training", {"name": "polite"}, TrainingRequest(name="polite")),
     ("training", {"name": "a.b-c_1", "epochs": 5, "lr": 0.01}, TrainingRequest(name="a.b-c_1", epochs=5, lr=0.01))],
)  # fmt: skip
def test_every_kind_has_its_request_and_survives_the_way(kind: str, request_: Any, expected: Any) -> None:
    event = JobRequested.model_validate({"user_id": "a", "kind": kind, "request": request_})
    assert event.request == expected
    assert JobRequested.model_validate_json(event.model_dump_json(exclude_none=True)) == event
    look_alike = {"speech": {"chat"}, "chat": {"speech"}, "smart": {"search"}, "search": {"smart"}}.get(kind, set())
    for other in {"chat", "rag", "search", "document", "embedding", "speech", "smart", "agent"} - {kind} - look_alike:
        with pytest.raises(ValidationError):
            JobRequested.model_validate({"user_id": "a", "kind": other, "request": request_})


@pytest.mark.parametrize(
    "wrong",
    [{"question": "Why?", "top_k": 0}, {"question": "Why?", "top_k": 21}, {"question": "Why?", "top_k": "5"},
     {"question": " "}, {"question": "Why?", "among": {"sources": []}}, {"question": "Why?", "stray": 1},
     {"question": "Why?", "among": {"documents": ["no id"]}}],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        RagRequest.model_validate(wrong)


@pytest.mark.parametrize(
    ("asked_for", "first", "rest"),
    [("openai", "openai", ()), (["openai"], "openai", ()), (["a", "b", "c"], "a", ("b", "c")),
     (["a", "b", "c"], "b", ("c",)), (["a", "b"], "x", ())],
)  # fmt: skip
def test_providers_are_one_or_several_in_order(asked_for: Any, first: str, rest: tuple[str, ...]) -> None:
    request = ChatRequest.model_validate_json(json.dumps({"prompt": "x", "provider": asked_for}))
    assert request.providers == ((asked_for,) if isinstance(asked_for, str) else tuple(asked_for))
    assert request.providers_after(first) == rest
    assert json.loads(request.model_dump_json(exclude_none=True))["provider"] == asked_for
    assert ChatRequest(prompt="x").providers == ()


@pytest.mark.parametrize("wrong", [[], ["a", "a"], list("abcdefg"), ["A"], [1], {"a": 1}, [["a"]], ""])
def test_what_names_no_providers_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        ChatRequest.model_validate_json(json.dumps({"prompt": "x", "provider": wrong}))


@pytest.mark.parametrize("wrong", [[], ["A"], 1, list("abcdefg")])
def test_what_names_no_failures_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        config(simulate_failure=wrong)
    assert config(simulate_failure="openai").simulate_failure == ("openai",)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "../x"}, {"name": ".x"}, {"name": "a/b"}, {"name": "x" * 65}, {"name": ""}, {"name": "a\n"},
     {"name": "a", "epochs": 21}, {"name": "a", "epochs": 0}, {"name": "a", "lr": 0.1}, {"name": "a", "batch_size": 33},
     {"name": "a", "epochs": "3"}, {"name": "a", "timeout": 90_000}, {"name": "a", "stray": 1}],
)  # fmt: skip
def test_a_training_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingRequest.model_validate(wrong)


def test_an_adapter_is_named_with_mode_lora_and_for_one_provider() -> None:
    modes: tuple[Any, ...] = (None, "base")
    for mode in modes:
        with pytest.raises(ValidationError, match="mode lora"):
            GenerationConfig(mode=mode, adapter="polite")
    wanted = GenerationConfig(mode="lora", adapter="polite")
    assert wanted.named() == ("mode",)
    assert wanted.without(["mode"]) == GenerationConfig()
    with pytest.raises(ValidationError, match="one provider's"):
        ChatRequest(prompt="x", provider=("local", "qwen3vl"), generation_config=wanted)
