"""Tokens for OAUTHBEARER: fetched once for all who ask, anew before they end, and refused in words that help."""

import asyncio
import threading
from collections.abc import Callable
from urllib.parse import parse_qs

import httpx
import pytest

from transport.oauth import MAX_REPLY_BYTES, ClientCredentials, TokenRefusedError

URL = "https://login.example/token"


class Endpoint:
    def __init__(self, reply: Callable[[int], httpx.Response]) -> None:
        self.requests: list[httpx.Request] = []
        self.now = 1000.0
        self._reply = reply

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._reply(len(self.requests))

    def provider(self, scope: str | None = None) -> ClientCredentials:
        return ClientCredentials(
            URL, client_id="gate", client_secret="the-secret", scope=scope, now=lambda: self.now,
            transport=httpx.MockTransport(self),
        )  # fmt: skip


def numbered(**more: object) -> Callable[[int], httpx.Response]:
    return lambda number: httpx.Response(200, json={"access_token": f"token-{number}", **more})


async def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    endpoint = Endpoint(numbered(expires_in=100))
    provider = endpoint.provider()
    assert await provider.token() == "token-1"
    endpoint.now += 79
    assert await provider.token() == "token-1"
    endpoint.now += 2
    assert await provider.token() == "token-2"
    assert len(endpoint.requests) == 2


async def test_it_asks_as_the_client_with_the_scope() -> None:
    endpoint = Endpoint(numbered())
    await endpoint.provider(scope="kafka").token()
    (request,) = endpoint.requests
    assert request.headers["authorization"] == httpx.BasicAuth("gate", "the-secret")._auth_header
    assert parse_qs(request.content.decode()) == {"grant_type": ["client_credentials"], "scope": ["kafka"]}


async def test_all_who_ask_at_once_share_one_call() -> None:
    may_answer = threading.Event()

    def reply(number: int) -> httpx.Response:
        assert may_answer.wait(10)
        return numbered(expires_in=100)(number)

    endpoint = Endpoint(reply)
    provider = endpoint.provider()
    asking = [asyncio.create_task(provider.token()) for _ in range(4)]
    while not endpoint.requests:
        await asyncio.sleep(0)
    may_answer.set()
    assert set(await asyncio.gather(*asking)) == {"token-1"}
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (httpx.Response(401, json={"error": "invalid_client"}), "KAFKA_SASL_OAUTH_CLIENT_SECRET"),
        (httpx.Response(200, json={"token": "x"}), "without an access_token"),
        (httpx.Response(200, text="<html>"), "without an access_token"),
        (httpx.Response(200, content=b"x" * (MAX_REPLY_BYTES + 1)), "more than"),
    ],
)
async def test_a_refusal_says_what_to_do_and_no_secret(reply: httpx.Response, told: str) -> None:
    with pytest.raises(TokenRefusedError, match=told) as refused:
        await Endpoint(lambda _: reply).provider().token()
    assert "the-secret" not in str(refused.value)


async def test_an_endpoint_that_is_away_is_named_and_asked_again() -> None:
    def reply(number: int) -> httpx.Response:
        if number == 1:
            raise httpx.ConnectError("refused")
        return numbered()(number)

    provider = Endpoint(reply).provider()
    with pytest.raises(TokenRefusedError, match="KAFKA_SASL_OAUTH_TOKEN_URL"):
        await provider.token()
    assert await provider.token() == "token-2"
