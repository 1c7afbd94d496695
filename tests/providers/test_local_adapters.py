"""Trained adapters on the real server: llama.cpp with a folder that they are put into."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from embedded.adapters import NEUTRAL
from embedded.model import model_file
from embedded.ports import free_port
from processors.errors import PermanentError, RetryableError
from providers import local
from providers.local import LocalProvider, make_local
from providers.local_adapters import loaded_adapters
from tests.adapter_files import write_adapter
from tests.providers.adapters import request
from tests.waiting import until

pytestmark = pytest.mark.integration
MODEL = "SmolLM2-135M-Instruct"
ASKED = request("Name three colours.", max_tokens=8, temperature=0.0)


class Server:
    """As the supervisor runs it; two adapters at most."""

    def __init__(self, folder: Path) -> None:
        self.adapters, self._log = folder / "adapters", folder / "log"
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}/v1"
        command = [
            sys.executable, "-m", "embedded.model_server", "--port", str(port), "--slots", "1", "--model",
            str(model_file()), "--alias", MODEL, "--adapters", str(self.adapters), "--most-adapters", "2",
            "--threads", "1",  # two wait for each other on a machine that has other things to do
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=Path(__file__).parent.parent.parent
            )

    def put(self, *, strength: float = 0.3, seed: int = 1) -> str:
        self.adapters.mkdir(exist_ok=True)
        adapter_id = str(uuid4())
        draft = write_adapter(self.adapters / f".{adapter_id}.draft", strength=strength, seed=seed)
        draft.rename(self.adapters / f"{adapter_id}.gguf")
        return adapter_id

    async def loaded(self) -> dict[str, int]:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            try:
                found = await loaded_adapters(client, self.base_url)
            except RetryableError:  # cut off as it began anew, as who asks for an answer is not; once, not twice
                assert self.process.poll() is None, self.log()
                found = await loaded_adapters(client, self.base_url)
        return {name: at for name, at in found.items() if name != Path(NEUTRAL).stem}

    async def has(self, *adapter_ids: str) -> bool:
        return set(await self.loaded()) == set(adapter_ids)

    def log(self) -> str:
        return self._log.read_text(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("model"))
    yield server
    server.process.kill()
    server.process.wait(10)


@pytest.fixture
async def provider(server: Server) -> AsyncIterator[LocalProvider]:
    provider = make_local(
        base_url=server.base_url, model=MODEL, embedding_url=None, embedding_model="", connections=4, adapters=True
    )
    await until(lambda: "listening on" in server.log(), within_s=90)
    yield provider
    await provider.close()


async def answer(provider: LocalProvider, adapter_id: str | None = None) -> str:
    return (await provider.complete(replace(ASKED, adapter_id=adapter_id, timeout_s=60))).text


async def test_an_adapter_that_is_put_there_answers_who_names_it_and_nobody_else(
    server: Server, provider: LocalProvider
) -> None:
    bare = await answer(provider)
    first = server.put(seed=1)
    # Calls all the while: each of them is answered, and by the bare model.
    async with asyncio.timeout(90):
        while not await server.has(first):
            assert await answer(provider) == bare
    second = server.put(seed=2)
    await until(lambda: server.has(first, second), within_s=90)
    with_first = await answer(provider, first)
    assert with_first != bare
    # One slot, one prompt: nobody is answered from what another adapter has left there.
    assert await answer(provider) == bare
    with_second = await answer(provider, second)
    assert with_second not in (bare, with_first)
    assert await answer(provider, first) == with_first
    assert await answer(provider) == bare

    # One that cannot be loaded is left out; the others stay where they were.
    places = await server.loaded()
    (server.adapters / "broken.gguf").write_bytes(b"GGUF, it says")
    await until(lambda: "left out: broken.gguf" in server.log(), within_s=90)
    await until(lambda: server.has(first, second), within_s=90)
    assert await server.loaded() == places

    # The newest two are kept, and the place of one that is gone is not at once another's.
    third = server.put(seed=3)
    await until(lambda: server.has(second, third), within_s=90)
    assert (await server.loaded())[second] == places[second]
    assert (await server.loaded())[third] != places[first]
    monkeypatched = pytest.MonkeyPatch()
    monkeypatched.setattr(local, "LOADED_WITHIN_S", 0.5)
    with monkeypatched.context(), pytest.raises(PermanentError) as raised:
        await answer(provider, first)
    monkeypatched.undo()
    assert raised.value.code == "adapter-missing"
    assert await answer(provider) == bare
