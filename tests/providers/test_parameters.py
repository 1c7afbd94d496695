"""What was asked for is what is sent, in each API's own words."""

from typing import Any

import pytest

from processors.ports import Image
from schemas.generation import PARAMETERS, ResponseFormat
from schemas.requests import Turn
from tests.providers.adapters import ADAPTERS, KEY, STREAMING, Adapter, request
from tests.providers.conftest import Asked
from tests.stand_ins.model_api import ModelApi

PNG = Image("image/png", b"picture")
PICTURE = "cGljdHVyZQ=="
ALL: dict[str, Any] = {
    "temperature": 0.25, "top_p": 0.5, "max_tokens": 9, "top_k": 40, "seed": 7, "stop": ("END", "."),
    "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.5,
}  # fmt: skip
OPENAIS = {
    "temperature": 0.25, "top_p": 0.5, "max_tokens": 9, "seed": 7, "stop": ["END", "."], "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
}  # fmt: skip
SENT: dict[str, dict[str, Any]] = {
    "openai": OPENAIS,
    "lmstudio": OPENAIS | {"top_k": 40, "repeat_penalty": 1.5},
    "local": OPENAIS | {"top_k": 40, "repeat_penalty": 1.5},
    "gemini": {"generationConfig": {
        "temperature": 0.25, "topP": 0.5, "maxOutputTokens": 9, "topK": 40, "seed": 7, "stopSequences": ["END", "."],
        "presencePenalty": 0.5, "frequencyPenalty": -0.5,
    }},
    "ollama": {"options": {
        "temperature": 0.25, "top_p": 0.5, "num_predict": 9, "top_k": 40, "seed": 7, "stop": ["END", "."],
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "repeat_penalty": 1.5,
    }},
    "qwen3vl": {"gen_config": {
        "temperature": 0.25, "top_p": 0.5, "max_new_tokens": 9, "top_k": 40, "repetition_penalty": 1.5,
    }},
}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"sky": {"type": "string"}}}
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
ASKED: dict[str, dict[str, Any]] = {
    "openai": {"model": "m-1", "messages": MESSAGES},
    "lmstudio": {"model": "m-1", "messages": MESSAGES},
    "local": {"model": "m-1", "messages": MESSAGES},
    "gemini": {
        "contents": [{"parts": [{"text": "hello"}], "role": "user"}],
        "systemInstruction": {"parts": [{"text": "be brief"}], "role": "user"},
        "generationConfig": {},
    },
    "ollama": {"model": "m-1", "messages": MESSAGES, "stream": False},
    "qwen3vl": {"prompt": "hello", "instruction": ["be brief"], "gen_config": {}, "image": None, "mode": "base"},
}
STREAMED: dict[str, dict[str, Any]] = {
    **{name: {"stream": True, "stream_options": {"include_usage": True}} for name in ("openai", "lmstudio", "local")},
    "ollama": {"stream": True},
}


async def test_prompt_and_instruction_are_sent_and_nothing_else(adapter: Adapter, api: ModelApi, ask: Asked) -> None:
    await ask(request("hello"))
    more = STREAMED.get(adapter.name, {}) if ask.way == "stream" else {}
    key = {"openai": f"Bearer {KEY}", "lmstudio": f"Bearer {KEY}", "local": "Bearer none", "gemini": KEY}
    assert api.last == (ASKED[adapter.name] | more, key.get(adapter.name, ""))


SAID = (Turn(role="user", text="Name a colour."), Turn(role="assistant", text="Blue."))
TURNS = [
    MESSAGES[0],
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "Blue."},
    MESSAGES[1],
]
CONVERSED: dict[str, dict[str, Any]] = {
    **{name: {"messages": TURNS} for name in ("openai", "lmstudio", "local", "ollama")},
    "gemini": {"contents": [
        {"parts": [{"text": "Name a colour."}], "role": "user"}, {"parts": [{"text": "Blue."}], "role": "model"},
        {"parts": [{"text": "hello"}], "role": "user"},
    ]},
    "qwen3vl": {"prompt": "User: Name a colour.\n\nAssistant: Blue.\n\nUser: hello\n\nAssistant:"},
}  # fmt: skip


async def test_a_conversation_is_sent_in_its_turns(adapter: Adapter, api: ModelApi, ask: Asked) -> None:
    await ask(request("hello", history=SAID))
    sent = api.last[0]
    assert {name: sent[name] for name in CONVERSED[adapter.name]} == CONVERSED[adapter.name]


async def test_without_an_instruction_there_is_none(adapter: Adapter, api: ModelApi, ask: Asked) -> None:
    await ask(request("hello", instruction=None))
    assert "be brief" not in str(api.last)
    assert "system" not in str(api.last)
    if adapter.name == "qwen3vl":
        assert api.last[0]["instruction"] == []


def test_what_a_provider_is_said_to_have_is_what_is_mapped() -> None:
    assert ALL.keys() == set(PARAMETERS)
    for name, adapter in ADAPTERS.items():
        has = adapter.make("http://127.0.0.1:1").capabilities.parameters
        sent = SENT[name] if name in ("openai", "lmstudio", "local") else next(iter(SENT[name].values()))
        assert len(has & ALL.keys()) == len(sent), name


async def test_each_parameter_is_sent_by_the_name_that_the_api_has_for_it(
    adapter: Adapter, api: ModelApi, provider: Any, ask: Asked
) -> None:
    has = provider.capabilities.parameters
    await ask(request("hello", **{name: value for name, value in ALL.items() if name in has}))
    told = {name: value for name, value in api.last[0].items() if ASKED[adapter.name].get(name) != value}
    for name in ("stream", "stream_options"):
        told.pop(name, None)
    assert told == SENT[adapter.name]


@pytest.mark.parametrize("adapter", STREAMING, indirect=True)
async def test_a_schema_is_sent_where_the_api_wants_it(adapter: Adapter, api: ModelApi, ask: Asked) -> None:
    wanted = ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"name": "sky", "schema": SCHEMA}})
    await ask(request("hello", response_format=wanted))
    body = api.last[0]
    if adapter.name == "gemini":
        config = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
        assert body["generationConfig"] == config
    elif adapter.name == "ollama":
        assert body["format"] == SCHEMA
    else:
        schema = {"name": "sky", "schema": SCHEMA}
        assert body["response_format"] == {"type": "json_schema", "json_schema": schema}


@pytest.mark.parametrize("adapter", ["openai", "local", "gemini", "ollama"], indirect=True)
async def test_any_json_is_asked_for_as_the_api_wants_it(adapter: Adapter, api: ModelApi, ask: Asked) -> None:
    assert "response_format.json_object" in ask.provider.capabilities.parameters
    await ask(request("hello", response_format=ResponseFormat(type="json_object")))
    body = api.last[0]
    if adapter.name == "gemini":
        assert body["generationConfig"] == {"responseMimeType": "application/json"}
    elif adapter.name == "ollama":
        assert body["format"] == "json"
    else:
        assert body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("adapter", ["lmstudio"], indirect=True)
async def test_lm_studio_does_not_say_that_it_has_what_it_refuses(provider: Any) -> None:
    assert "response_format.json_object" not in provider.capabilities.parameters
    assert "response_format.json_schema" in provider.capabilities.parameters


@pytest.mark.parametrize("adapter", ["qwen3vl"], indirect=True)
async def test_only_qwen3vl_answers_with_a_lora(api: ModelApi, ask: Asked) -> None:
    await ask(request("hello", mode="lora"))
    assert api.last[0]["mode"] == "lora"
    await ask(request("hello", mode="base"))
    assert api.last[0]["mode"] == "base"
    have = {name for name, one in ADAPTERS.items() if "mode" in one.make("http://127.0.0.1:1").capabilities.parameters}
    assert have == {"qwen3vl"}


@pytest.mark.parametrize(
    ("adapter", "sent"),
    [
        *((name, {"role": "user", "content": [
            {"type": "text", "text": "hello"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
        ]}) for name in ("openai", "lmstudio")),
        ("gemini", {"role": "user", "parts": [
            {"inlineData": {"data": PICTURE, "mime_type": "image/png"}}, {"text": "hello"},
        ]}),
        ("ollama", {"role": "user", "content": "hello", "images": [PICTURE]}),
        ("qwen3vl", PICTURE),
    ],
    indirect=["adapter"],
)  # fmt: skip
async def test_an_image_is_sent_as_the_api_wants_it(api: ModelApi, ask: Asked, sent: Any) -> None:
    await ask(request("hello", images=(PNG,)))
    body = api.last[0]
    found = body.get("image") or body.get("messages", body.get("contents", [None]))[-1]
    assert found == sent


@pytest.mark.parametrize(("purpose", "task"), [("query", "RETRIEVAL_QUERY"), ("passage", "RETRIEVAL_DOCUMENT")])
@pytest.mark.parametrize("adapter", ["gemini"], indirect=True)
async def test_gemini_is_told_what_a_text_is_embedded_for(
    api: ModelApi, provider: Any, purpose: str, task: str
) -> None:
    await provider.embed(["a", "b"], purpose=purpose, timeout_s=5)
    assert [asked["taskType"] for asked in api.last[0]["requests"]] == [task, task]
