"""What OpenAI's clients send, as the job's request that it means."""

from typing import Any

import pytest
from pydantic import ValidationError

from ingress.http.problems import Problem
from ingress.openai_api.bodies import ChatCompletionBody
from ingress.openai_api.model_names import Model
from schemas.events import JobRequested
from schemas.generation import GenerationConfig
from schemas.requests import ChatRequest

MODEL = Model("openai", "m-1")
USER = {"role": "user", "content": "Why is the sky blue?"}


def request(*messages: dict[str, Any], **more: Any) -> ChatRequest:
    return ChatCompletionBody.model_validate({"model": "m-1", "messages": messages or [USER], **more}).request(MODEL)


def turns(found: ChatRequest) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in found.history or ()]


def test_a_question_is_a_prompt_to_its_model() -> None:
    assert request() == ChatRequest(prompt="Why is the sky blue?", provider="openai", model="m-1")


def test_system_and_developer_messages_are_the_instruction_wherever_they_stand() -> None:
    found = request(
        {"role": "system", "content": "Be brief."}, USER, {"role": "developer", "content": "Be kind."},
        {"role": "system", "content": ""},
    )  # fmt: skip
    assert (found.instruction, found.prompt, found.history) == ("Be brief.\n\nBe kind.", "Why is the sky blue?", None)


def test_a_conversation_is_the_prompt_and_what_was_said_before_it() -> None:
    found = request(
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "then?"}]},
    )
    assert found.prompt == "And then?"
    assert turns(found) == [("user", "Hello."), ("assistant", "Hello!")]


def test_turns_of_one_side_after_each_other_are_one() -> None:
    found = request(
        {"role": "user", "content": "One."}, {"role": "assistant", "content": ""}, {"role": "user", "content": "Two."},
        {"role": "assistant", "content": "Hm."}, {"role": "assistant", "content": "Yes."}, USER,
    )  # fmt: skip
    assert turns(found) == [("user", "One.\n\nTwo."), ("assistant", "Hm.\n\nYes.")]


def test_an_answer_that_was_a_refusal_can_be_said_again() -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I cannot help with this."}
    assert turns(request(USER, refused, USER))[1] == ("assistant", "I cannot help with this.")


def test_what_no_topic_can_hold_is_left_out_of_every_turn() -> None:
    found = request({"role": "user", "content": "a\x00b"}, {"role": "assistant", "content": "c\ud800d"}, USER)
    assert turns(found) == [("user", "ab"), ("assistant", "cd")]
    JobRequested(user_id="alice", kind="chat", request=found).model_dump_json()


def test_every_parameter_has_its_place() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
    found = request(
        temperature=0.5, top_p=1, max_completion_tokens=9, seed=7, stop="END", presence_penalty=1,
        frequency_penalty=-1, response_format=schema, top_k=5, repetition_penalty=1.1, timeout=90,
    )  # fmt: skip
    wanted = GenerationConfig(
        temperature=0.5, top_p=1, max_tokens=9, seed=7, stop=("END",), presence_penalty=1, frequency_penalty=-1,
        response_format=schema, top_k=5, repetition_penalty=1.1,
    )  # fmt: skip
    assert (found.generation_config.model_dump(), found.timeout) == (wanted.model_dump(), 90)
    assert request(max_tokens=5).generation_config.max_tokens == 5


def test_null_and_what_asks_for_nothing_are_as_good_as_absent() -> None:
    nothing = {"n": 1, "logprobs": False, "tools": [], "logit_bias": {}, "store": False, "service_tier": "auto"}
    assert request(temperature=None, stop=None, tool_choice=None, user=None, **nothing) == request()


def test_the_user_and_metadata_are_kept_with_the_job() -> None:
    body = ChatCompletionBody(model="m", messages=[USER], user="u-1", metadata={"team": "blue"})
    assert body.job_metadata() == {"team": "blue", "user": "u-1"}
    assert ChatCompletionBody(model="m", messages=[USER]).job_metadata() == {}


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported-parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported-parameter"),
        ({"logprobs": True}, "logprobs", "unsupported-parameter"),
        ({"colour": "red"}, "colour", "unsupported-parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid-body"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid-body"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_by_its_name(more: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        request(**more)
    assert (caught.value.status, caught.value.code, caught.value.extra["param"]) == (400, code, param)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}  # nobody has taken it out


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([{"role": "user", "content": [IMAGE]}], "messages[0].content[0]", "invalid-body"),
        ([USER, {"role": "tool", "content": "4"}], "messages[1].role", "invalid-body"),
        ([{"role": "god", "content": "x"}], "messages[0].role", "invalid-body"),
        ([{"content": "x"}], "messages[0].role", "invalid-body"),
        ([{"role": "user"}], "messages[0].content", "invalid-body"),
        ([{"role": "user", "content": []}], "messages[0].content", "invalid-body"),
        ([{"role": "user", "content": 7}], "messages[0].content", "invalid-body"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]", "invalid-body"),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], "messages[0].content[0]", "invalid-body"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0]", "invalid-body"),
        ([USER, {"role": "user", "content": " \n"}], "messages[1].content", "invalid-body"),
        ([USER, {"role": "assistant", "content": "Be"}], "messages[1].role", "invalid-body"),
        ([{"role": "system", "content": "x"}], "messages[0].role", "invalid-body"),
        ([{"role": "user", "content": "x", "name": "bob"}], "messages[0].name", "unsupported-parameter"),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]}, USER], "messages[0].tool_calls",
         "unsupported-parameter"),
        ([{"role": "user", "content": "x" * 20_001}], "messages", "invalid-body"),
        ([{"role": "system", "content": "x" * 5_001}, USER], "messages", "invalid-body"),
        ([{"role": "assistant", "content": "x" * 100_000}, {"role": "user", "content": "x"},
          {"role": "assistant", "content": "x"}, USER], "messages", "invalid-body"),
        ([USER, {"role": "assistant", "content": "x"}] * 101 + [USER], "messages", "invalid-body"),
    ],
)  # fmt: skip
def test_a_message_that_does_not_fit_is_said_by_its_place(messages: list[Any], param: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        request(*messages)
    assert (caught.value.status, caught.value.code, caught.value.extra["param"]) == (400, code, param)
    assert "xxxx" not in caught.value.detail


@pytest.mark.parametrize(
    "body", [{"temperature": "1"}, {"max_tokens": True}, {"stream": "yes"}, {"messages": []}, {"messages": ["x"]},
             {"model": None}, {"stop": []}, {"metadata": {"a": 1}}, {"response_format": {"type": "xml"}},
             {"cancel_on_disconnect": 1}],
)  # fmt: skip
def test_a_field_of_another_kind_does_not_fit(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatCompletionBody.model_validate({"model": "m", "messages": [USER], **body})
