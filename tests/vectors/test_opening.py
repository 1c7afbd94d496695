import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from embedded.ports import free_port
from processors.errors import PermanentError, RetryableError
from settings import Settings
from streams.errors import StartError
from streams.vectors import Vectors
from tests.vectors.conftest import search, store
from vectors.opening import open_server, why_unfit


@pytest.mark.parametrize(
    ("url", "has_key", "refusal"),
    [
        ("https://qdrant.example:6333", True, None),
        ("http://127.0.0.1:6333", True, None),
        ("http://[::1]:6333", True, None),
        ("http://localhost:6333", True, None),
        ("http://qdrant:6333", True, "over http"),
        ("http://10.0.0.1:6333", True, "over http"),
        ("http://127.0.0.1.example:6333", True, "over http"),
        ("https://qdrant.example:6333", False, "QDRANT_API_KEY"),
        ("http://127.0.0.1:6333", False, "QDRANT_API_KEY"),
    ],
)
def test_production_refuses_what_is_open_to_others(url: str, has_key: bool, refusal: str | None) -> None:
    found = why_unfit(url, has_key=has_key, production=True)
    assert found is None if refusal is None else found is not None and refusal in found
    assert why_unfit(url, has_key=has_key, production=False) is None


@pytest.mark.parametrize("url", ["qdrant:6333", "ftp://qdrant", "https://", "http://user:secret@qdrant"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert why_unfit(url, has_key=True, production=False)


def _settings(home: Path, **given: object) -> Settings:
    return Settings(_env_file=None, qdrant_path=home / "vectors", **given)  # type: ignore[arg-type]  # as the tests give them


async def test_two_roles_of_a_process_share_a_folder_and_a_second_process_is_told_what_to_do(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        one = Vectors(_settings(tmp_path), stack)
        assert one.opened() is one.opened()
        with pytest.raises(StartError, match="QDRANT_URL"):
            Vectors(_settings(tmp_path), stack).opened()
    async with AsyncExitStack() as stack:
        assert Vectors(_settings(tmp_path), stack).opened()


async def test_nobody_makes_up_a_place_of_their_own(tmp_path: Path) -> None:
    """It would be one in which no other worker finds anything."""
    async with AsyncExitStack() as stack:
        vectors = Vectors(Settings(_env_file=None, assistant_home=tmp_path), stack)
        assert not vectors.are_named
        with pytest.raises(StartError, match="QDRANT_URL is not set"):
            vectors.opened()


async def test_what_is_in_a_folder_is_there_after_a_restart(tmp_path: Path) -> None:
    for expected in (0, 1):
        async with AsyncExitStack() as stack:
            repository = Vectors(_settings(tmp_path), stack).opened()
            assert await repository.count("alice") == expected
            await store(repository, "alice", "dog")


async def test_deployments_of_one_server_are_kept_apart_by_their_prefix(tmp_path: Path) -> None:
    from vectors.opening import open_folder

    one = open_folder(tmp_path)
    one._namespace = "one."
    await store(one, "alice", "dog")
    one._namespace = "two."
    assert await one.count("alice") == 0
    assert await search(one, "alice", "dog") == []
    await one.close()


async def test_production_refuses_at_the_start(tmp_path: Path) -> None:
    settings = _settings(tmp_path, qdrant_url="http://qdrant:6333", qdrant_api_key=SecretStr("k"), production=True)
    async with AsyncExitStack() as stack:
        with pytest.raises(StartError, match="over http"):
            Vectors(settings, stack).opened()
        lacking = _settings(tmp_path, qdrant_url="https://qdrant:6333", qdrant_cacert=tmp_path / "none.pem")
        with pytest.raises(StartError, match="QDRANT_CACERT"):
            Vectors(lacking, stack).opened()
    with pytest.raises(ValidationError, match="http"):
        _settings(tmp_path, qdrant_url="qdrant:6333")


async def _served(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], stack: AsyncExitStack
) -> str:  # fmt: skip
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_server_that_may_answer_later_is_asked_again_later(status: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"status": {"error": "too much"}}, status=status, headers={"Retry-After": "7"})

    async with AsyncExitStack() as stack:
        repository = open_server(await _served(answer, stack), api_key=None, cacert=None)
        stack.push_async_callback(repository.close)
        with pytest.raises(RetryableError) as raised:
            await search(repository, "alice", "dog")
        assert raised.value.code == "vectors-unavailable"
        assert raised.value.retry_after_s == (7 if status == 429 else None)


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refusal_is_one(status: int) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"status": {"error": "must not"}}, status=status)

    async with AsyncExitStack() as stack:
        repository = open_server(await _served(answer, stack), api_key=None, cacert=None)
        stack.push_async_callback(repository.close)
        with pytest.raises(PermanentError, match="must not") as raised:
            await repository.count("alice")
        assert raised.value.code == f"vectors-http-{status}"


async def test_garbage_is_no_answer() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async with AsyncExitStack() as stack:
        repository = open_server(await _served(answer, stack), api_key=None, cacert=None)
        stack.push_async_callback(repository.close)
        with pytest.raises(RetryableError):
            await repository.count("alice")


async def test_nobody_there_is_said_at_once() -> None:
    repository = open_server(f"http://127.0.0.1:{free_port()}", api_key="secret-key", cacert=None)
    with pytest.raises(RetryableError, match="cannot be reached") as raised:
        await store(repository, "alice", "dog")
    assert "secret-key" not in str(raised.value)
    await repository.close()


async def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectors.qdrant.SEARCH_TIMEOUT_S", 0.2)
    came, gone = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        came.set()
        await gone.wait()
        return web.Response()

    async with AsyncExitStack() as stack:
        repository = open_server(await _served(answer, stack), api_key=None, cacert=None)
        stack.push_async_callback(repository.close)
        with pytest.raises(RetryableError, match="did not answer"):
            await search(repository, "alice", "dog")
        gone.set()
        assert came.is_set()


async def test_the_key_goes_with_each_call_and_proxies_of_the_environment_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    keys: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        keys.append(request.headers.get("api-key"))
        return web.json_response({"result": {"collections": []}, "status": "ok", "time": 0.1})

    async with AsyncExitStack() as stack:
        repository = open_server(await _served(answer, stack), api_key="the-key", cacert=None)
        stack.push_async_callback(repository.close)
        assert await repository.count("alice") == 0
    assert keys == ["the-key"]
