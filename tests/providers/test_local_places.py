"""Which place of its server's list the local model is asked with, and what it does while the server loads."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from processors.errors import PermanentError, RetryableError
from processors.ports import Completion, CompletionRequest
from providers import local
from providers.local import LocalProvider, make_local
from providers.local_adapters import loaded_adapters
from providers.openai_compatible import OpenAICompatibleProvider
from tests.providers.adapters import request

ASKED = request("hello")
ANSWER = Completion("Hello.", "m", "stop", None)
BASE_URL = "http://127.0.0.1:1/v1"


class Script:
    """What the server has loaded, asked in turn, and how it takes calls; `bodies`: what it was sent."""

    def __init__(self) -> None:
        self.loaded: list[dict[str, int]] = []
        self.fails: list[RetryableError] = []
        self.bodies: list[dict[str, Any]] = []


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()

    async def loaded(client: object, base_url: str) -> dict[str, int]:
        return script.loaded.pop(0) if len(script.loaded) > 1 else script.loaded[0]

    async def complete(self: LocalProvider, request: CompletionRequest) -> Completion:
        script.bodies.append(self._body(request))
        if script.fails:
            raise script.fails.pop(0)
        return ANSWER

    monkeypatch.setattr(local, "loaded_adapters", loaded)
    monkeypatch.setattr(local, "ASK_EVERY_S", 0.001)
    monkeypatch.setattr(local, "LOADED_WITHIN_S", 0.2)
    monkeypatch.setattr(OpenAICompatibleProvider, "complete", complete)
    return script


def provider(*, adapters: bool = True) -> LocalProvider:
    return make_local(
        base_url=BASE_URL, model="m", embedding_url=None, embedding_model="", connections=1, adapters=adapters
    )


async def test_an_adapter_is_named_by_its_place_at_the_time(script: Script) -> None:
    script.loaded = [{"a": 1, "b": 3}, {"b": 2}]
    asking = provider()
    await asking.complete(replace(ASKED, adapter_id="b"))
    await asking.complete(replace(ASKED, adapter_id="b"))
    assert [body["lora"] for body in script.bodies] == [[{"id": 3, "scale": 1.0}], [{"id": 2, "scale": 1.0}]]
    await asking.close()


async def test_the_bare_model_is_named_too_where_adapters_are_served(script: Script) -> None:
    await provider().complete(ASKED)
    await provider(adapters=False).complete(ASKED)
    assert [body.get("lora") for body in script.bodies] == [[{"id": 0, "scale": 1.0}], None]


async def test_an_adapter_that_comes_late_is_waited_for(script: Script) -> None:
    script.loaded = [{}, {}, {"b": 2}]
    assert await provider().complete(replace(ASKED, adapter_id="b")) == ANSWER


async def test_one_that_does_not_come_is_missing_and_nothing_is_asked(script: Script) -> None:
    script.loaded = [{"a": 1}]
    with pytest.raises(PermanentError) as raised:
        await provider().complete(replace(ASKED, adapter_id="b"))
    assert (raised.value.code, script.bodies) == ("adapter-missing", [])


async def test_a_server_that_loads_is_a_wait(script: Script) -> None:
    script.fails = [RetryableError("provider-http-503", "")] * 3
    assert await provider().complete(ASKED) == ANSWER
    assert len(script.bodies) == 4


@pytest.mark.parametrize(
    ("fails", "adapters"), [("provider-http-503", False), ("provider-unreachable", False), ("provider-http-500", True)]
)
async def test_other_failures_are_told_at_once(script: Script, fails: str, adapters: bool) -> None:
    script.fails = [RetryableError(fails, "")]
    with pytest.raises(RetryableError):
        await provider(adapters=adapters).complete(ASKED)
    assert len(script.bodies) == 1


async def test_a_server_that_hangs_up_is_asked_once_more(script: Script) -> None:
    script.fails = [RetryableError("provider-unreachable", ""), RetryableError("provider-http-503", "")]
    assert await provider().complete(ASKED) == ANSWER
    script.bodies.clear()
    script.fails = [RetryableError("provider-unreachable", "")] * 2
    with pytest.raises(RetryableError):
        await provider().complete(ASKED)
    assert len(script.bodies) == 2


async def test_what_was_told_already_is_not_told_again(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def stream(self: LocalProvider, request: CompletionRequest, on_delta: Any) -> Completion:
        await on_delta("Hel")
        raise RetryableError("provider-unreachable", "")

    async def on_delta(text: str) -> None:
        told.append(text)

    monkeypatch.setattr(OpenAICompatibleProvider, "stream", stream)
    with pytest.raises(RetryableError):
        await provider().stream(ASKED, on_delta)
    assert told == ["Hel"]


async def test_a_server_that_goes_on_loading_is_told_of(script: Script) -> None:
    script.fails = [RetryableError("provider-http-503", "")] * 100_000
    with pytest.raises(RetryableError):
        await provider().complete(ASKED)


async def test_it_says_that_it_has_mode_lora_where_adapters_are_served() -> None:
    assert "mode" in provider().capabilities.parameters
    assert "mode" not in provider(adapters=False).capabilities.parameters


def answered(reply: httpx.Response | Exception) -> httpx.AsyncClient:
    def handle(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://127.0.0.1:1/lora-adapters"
        if isinstance(reply, Exception):
            raise reply
        return reply

    return httpx.AsyncClient(transport=httpx.MockTransport(handle))


async def test_places_are_read_from_the_servers_list() -> None:
    told = [{"id": 0, "path": "/x/.neutral.gguf", "scale": 1}, {"id": 1, "path": "/x/abc-1.gguf", "scale": 0}]
    assert await loaded_adapters(answered(httpx.Response(200, json=told)), BASE_URL) == {".neutral": 0, "abc-1": 1}
    assert await loaded_adapters(answered(httpx.Response(503)), BASE_URL) == {}


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (httpx.Response(404), "provider-http-404"),
        (httpx.Response(500), "provider-http-500"),
        (httpx.Response(200, content=b"[{]"), "provider-invalid-reply"),
        (httpx.Response(200, json=[{"id": -1, "path": "x"}]), "provider-invalid-reply"),
        (httpx.ConnectError("refused"), "provider-unreachable"),
    ],
)
async def test_what_is_no_list_is_an_error(reply: httpx.Response | Exception, code: str) -> None:
    with pytest.raises((PermanentError, RetryableError)) as raised:
        await loaded_adapters(answered(reply), BASE_URL)
    assert isinstance(raised.value, PermanentError | RetryableError)
    assert raised.value.code == code
