"""What goes out is what the SDK itself would send, whether it was made for this question or before."""

from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from providers.openai_client import CLOSING, HEADERS, OPTIONS, make_client
from providers.sdk_http import make_sdk_client

BASE_URL = "http://127.0.0.1:9/v1"
URL = f"{BASE_URL}/chat/completions"


def recorded(client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch) -> list[httpx2.Request]:
    """All requests that it sends from now on; each is answered."""
    sent: list[httpx2.Request] = []

    async def send(request: httpx2.Request, **_: Any) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, request=request, content=b"{}")

    monkeypatch.setattr(client._client, "send", send)
    return sent


async def ask(client: AsyncOpenAI, body: bytes, headers: Any = HEADERS, *, timeout_s: float = 3.0) -> None:
    options: Any = {**OPTIONS, "headers": headers, "timeout": timeout_s}
    await client.post(URL, content=body, cast_to=httpx2.Response, options=options)


@pytest.mark.parametrize("headers", [HEADERS, CLOSING])
async def test_every_question_carries_what_the_sdk_would_send(monkeypatch: pytest.MonkeyPatch, headers: Any) -> None:
    ours = make_client(base_url=BASE_URL, api_key="key", connections=1)
    http = make_sdk_client(base_url=BASE_URL, connections=1, trust_env=False)
    theirs = AsyncOpenAI(base_url=BASE_URL, api_key="key", max_retries=0, http_client=http)
    sent, expected = recorded(ours, monkeypatch), recorded(theirs, monkeypatch)
    for body in (b'{"n":1}', b'{"n":22}', b'{"n":333}'):
        await ask(ours, body, headers)
        await ask(theirs, body, headers)
    for mine, wanted in zip(sent, expected, strict=True):
        assert (mine.method, mine.url, mine.content) == (wanted.method, wanted.url, wanted.content)
        assert sorted(mine.headers.multi_items()) == sorted(wanted.headers.multi_items())
        assert mine.extensions == wanted.extensions
    assert sent[-1].headers["authorization"] == "Bearer key"
    await ours.close()
    await theirs.close()


async def test_what_one_question_has_of_its_own_is_not_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client(base_url=BASE_URL, api_key="key", connections=1)
    sent = recorded(client, monkeypatch)
    await ask(client, b"{}", timeout_s=3)
    sent[0].headers["x-once"] = "1"
    await ask(client, b"{}", CLOSING, timeout_s=7)
    await ask(client, b"{}", timeout_s=5)
    client.api_key = "another"
    await ask(client, b"{}", timeout_s=9)
    assert [one.headers.get("x-once") for one in sent] == ["1", None, None, None]
    assert [one.headers.get("connection") == "close" for one in sent] == [False, True, False, False]
    assert [one.extensions["timeout"]["read"] for one in sent] == [3, 7, 5, 9]
    assert sent[3].headers["authorization"] == "Bearer another"
    await client.close()
