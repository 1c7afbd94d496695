"""The embedding server: its frame with a model that does nothing, and the real model in a process of its own."""

import asyncio
import base64
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from openai import AsyncOpenAI

from embedded import embedding_engine
from embedded.embedding_engine import LOWEST, Lane, make_lanes
from embedded.embedding_server import MAX_CHARS, MAX_TEXTS, EmbeddingServer
from embedded.running import Running
from embedded.services import start_embeddings
from providers.local import make_local
from tests.deployment import plain_client

MODEL = "multilingual-e5-small"
PATIENT_S = 600  # passages are made with what others leave, and beside other tests that is little


class FakeEngine:
    """Every text's vector begins with its length; passages wait until they are let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.embedded: list[str] = []

    def query(self, texts: Sequence[str]) -> Any:
        return self._vectors(texts)

    def passage(self, texts: Sequence[str]) -> Any:
        assert self.let_go.wait(20)
        return self._vectors(texts)

    def token_count(self, text: str, is_query: bool) -> int:
        return len(text.split()) + 2

    def _vectors(self, texts: Sequence[str]) -> Any:
        self.embedded += texts
        return np.array([[len(text), 0.5, -0.25] for text in texts], dtype=np.float32)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.let_go.set()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    server = EmbeddingServer(MODEL, make_lanes(lambda: engine), dimensions=3)
    transport = httpx.ASGITransport(server.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=30) as client:
        yield client


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": MODEL, "input": "text", "input_type": "query"} | body)


async def test_texts_become_vectors_in_their_order(client: httpx.AsyncClient) -> None:
    body = (await ask(client, input=["a", "bb c"])).json()
    assert [one["embedding"] for one in body["data"]] == [[1, 0.5, -0.25], [4, 0.5, -0.25]]
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert (body["model"], body["usage"]) == (MODEL, {"prompt_tokens": 7, "total_tokens": 7})
    packed = (await ask(client, input="a", encoding_format="base64")).json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == (1, 0.5, -0.25)
    assert (await client.get("/v1/models")).json()["data"][0]["id"] == MODEL


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"input": []}, 400), ({"input": ""}, 400), ({"input": ["a", ""]}, 400), ({"input": [1]}, 400),
        ({"input": ["x"] * (MAX_TEXTS + 1)}, 400), ({"input": "x" * (MAX_CHARS + 1)}, 400),
        ({"input_type": "other"}, 400), ({"model": "other"}, 404), ({"dimensions": 7}, 400), ({"unknown": 1}, 400),
        ({"encoding_format": "int8"}, 400),
        ({"input": ["x" * MAX_CHARS] * MAX_TEXTS}, 200), ({"dimensions": 3, "user": "u"}, 200),
    ],
)  # fmt: skip
async def test_what_it_takes_is_bounded(client: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    reply = await ask(client, **body)
    assert reply.status_code == status, reply.text
    assert status == 200 or reply.json()["error"]["message"]


async def test_a_body_that_does_not_end_is_cut_off(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    assert (await client.post("/v1/embeddings", content=endless())).status_code == 413


async def test_questions_do_not_wait_behind_passages(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    passages = [asyncio.create_task(ask(client, input=["p"] * 64, input_type="passage")) for _ in range(8)]
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(ask(client), 10)).status_code == 200
    assert not any(task.done() for task in passages)
    engine.let_go.set()
    assert [reply.status_code for reply in await asyncio.gather(*passages)] == [200] * 8


async def test_more_than_may_wait_are_sent_away_until_later(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    calls = [asyncio.create_task(ask(client, input_type="passage")) for _ in range(40)]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().status_code for task in done} == {429}
    assert {task.result().headers["retry-after"] for task in done} == {"1"}
    engine.let_go.set()
    statuses = [reply.status_code for reply in await asyncio.gather(*calls)]
    assert statuses.count(200) >= embedding_engine.WAITING_PASSAGES
    assert set(statuses) == {200, 429}


async def test_nothing_more_is_done_for_who_is_gone(engine: FakeEngine) -> None:
    lane = Lane("passage", waiting=4, niceness=0, make=lambda: engine)
    gone = asyncio.create_task(lane.embed(["gone"] * 64))
    await asyncio.sleep(0)
    gone.cancel()
    stays = asyncio.create_task(lane.embed(["stays"]))
    await asyncio.sleep(0)
    engine.let_go.set()
    await stays
    assert engine.embedded.count("gone") <= embedding_engine.AT_ONCE


async def test_a_caller_that_closes_its_connection_is_gone(engine: FakeEngine) -> None:
    app = EmbeddingServer(MODEL, make_lanes(lambda: engine), dimensions=3).app
    body = b'{"model": "%s", "input": [%s]}' % (MODEL.encode(), b",".join([b'"gone"'] * 64))
    said = iter(({"type": "http.request", "body": body}, {"type": "http.disconnect"}))
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": [], "query_string": b""}

    async def receive() -> dict[str, Any]:
        return next(said)

    async def send(_: Any) -> None:
        pass

    await asyncio.wait_for(app(scope, receive, send), 10)
    engine.let_go.set()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        assert (await ask(client, input="stays", input_type="passage")).status_code == 200
    assert engine.embedded.count("gone") <= embedding_engine.AT_ONCE


async def test_an_engine_that_fails_fails_the_call_and_not_the_next(engine: FakeEngine) -> None:
    lane = Lane("query", waiting=4, niceness=0, make=lambda: engine)
    right = engine.token_count
    engine.token_count = None  # type: ignore[assignment,method-assign]  # on purpose
    with pytest.raises(TypeError):
        await lane.embed(["a"])
    engine.token_count = right  # type: ignore[method-assign]  # as it was
    assert (await lane.embed(["a"]))[1] == 3


# --- the real one ---


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start_embeddings(tmp_path_factory.mktemp("embeddings"), model=MODEL)
    yield running
    running.stop()


async def test_openais_own_client_can_talk_to_it(real: Running) -> None:
    async with plain_client() as http, AsyncOpenAI(base_url=real.url, api_key="none") as client:
        reply = await client.embeddings.create(model=MODEL, input=["dog", "cat"])  # by base64, its default
        as_float = await client.embeddings.create(model=MODEL, input="dog", encoding_format="float")
        assert len(reply.data) == 2
        assert reply.data[0].embedding == pytest.approx(as_float.data[0].embedding, abs=0.02)
        assert [model.id for model in (await client.models.list()).data] == [MODEL]
        assert (await http.get(real.url.removesuffix("/v1") + "/health")).status_code == 200


async def test_a_question_is_nearest_to_its_answer_across_languages(real: Running) -> None:
    provider = make_local(base_url=None, model="", embedding_url=real.url, embedding_model=MODEL, connections=4)
    passages = [
        "Собаки лают, когда чужие подходят к дому.",
        "The invoice is due within thirty days.",
        "水在一百度沸腾。",
    ]
    found = np.array((await provider.embed(passages, purpose="passage", timeout_s=PATIENT_S)).vectors)
    asked = await provider.embed(
        ["When do dogs bark?", "When must the bill be paid?", "At what temperature does water boil?"],
        purpose="query", timeout_s=60,
    )  # fmt: skip
    assert [int(np.argmax(found @ np.array(vector))) for vector in asked.vectors] == [0, 1, 2]
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1], abs=1e-3)
    as_passage = await provider.embed(["When do dogs bark?"], purpose="passage", timeout_s=PATIENT_S)
    assert as_passage.vectors[0] != asked.vectors[0]
    await provider.close()


async def test_passages_are_made_with_what_others_leave(real: Running) -> None:
    """Its threads for passages, OpenMP's among them, are the nicest; those for questions are not."""
    provider = make_local(base_url=None, model="", embedding_url=real.url, embedding_model=MODEL, connections=4)
    await provider.embed(["a", "b", "c"], purpose="passage", timeout_s=PATIENT_S)
    await provider.embed(["a"], purpose="query", timeout_s=60)
    nice = [_niceness(real.pid, thread.id) for thread in psutil.Process(real.pid).threads()]
    own = psutil.Process(real.pid).nice()
    assert nice.count(LOWEST) >= min(2, psutil.cpu_count() or 1) or own == LOWEST
    assert nice.count(own) >= 2
    await provider.close()


async def test_a_letter_that_is_too_long_for_the_engine_ends_nothing(real: Running) -> None:
    """A hundred of them, as they are, corrupt its heap."""
    provider = make_local(base_url=None, model="", embedding_url=real.url, embedding_model=MODEL, connections=4)
    for purpose in ("query", "passage"):
        texts = ["\ufdfa" * 100, "\ufdfa " * 100]
        found = await provider.embed(texts, purpose=purpose, timeout_s=PATIENT_S)
        assert len(found.vectors) == 2
    assert psutil.Process(real.pid).is_running()
    await provider.close()


def _niceness(pid: int, thread: int) -> int:
    fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[16])
