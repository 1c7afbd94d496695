"""As `test_canaries`, of all that is said to agents, voices, documents and trainings."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from tests.agents_scene import call, finish
from tests.conftest import KafkaForTests
from tests.deployment import ROOT, Deployment, client_of, plain_client, register
from tests.forks import Forks
from tests.pipeline.conftest import environment
from tests.pipeline.test_agents import ScriptedApi
from tests.pipeline.test_canaries import ATTACK, around, spellings
from tests.stand_ins.qwen3vl_api import Qwen3VlStandIn
from tests.stand_ins.qwen_tts_api import QwenTtsStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
# One for each place where somebody says something; a model says thoughts and inputs, another system outputs.
GOAL, THOUGHT, TOOL_INPUT, TOOL_OUTPUT, ANSWER = (
    f"canary-{name}-{n}" for n, name in enumerate(("goal", "thought", "input", "output", "answer"), start=7301)
)
SPEECH, MANNER, LESSON, CONTENT, FILE_NAME, QUESTION, QUERY, EVENT = (
    f"canary-{name}-{n}"
    for n, name in enumerate(
        ("speech", "manner", "lesson", "content", "file", "question", "query", "event"), start=8401
    )
)
CANARIES = (GOAL, THOUGHT, TOOL_INPUT, TOOL_OUTPUT, ANSWER, SPEECH, MANNER, LESSON, CONTENT, FILE_NAME, QUESTION, QUERY,
            EVENT)  # fmt: skip
MOST_WRONG = 18  # in a row: of two more a stage thinks that it is broken itself
ROLES = "gate,completion,retrieval,agent,ingestion,speech,training,sink"


class Api(ScriptedApi):
    """`scripts` by what the goal ends with, whatever else it says."""

    def text(self, prompt: str) -> str:
        at = self.at(prompt)
        script = next((says for end, says in self.scripts.items() if at and at[0].endswith(end)), None)
        return script[min(at[1], len(script) - 1)] if at and script else f"{ANSWER} {super().text(prompt)}"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with Api() as api:
        yield api


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, api: Api, forks: Forks
) -> AsyncIterator[Deployment]:
    async with QwenTtsStandIn() as voice, Qwen3VlStandIn() as qwen:
        settings = environment(api.base_url) | {
            "ALLOWED_PROVIDERS": '["openai", "qwen3vl", "qwen-tts", "local"]', "TTS_API_URL": voice.base_url,
            "QWEN3_VL_BASE_URL": qwen.base_url, "EMBEDDING_PROVIDER": "openai", "DEFAULT_PROVIDER": "openai",
            "QDRANT_PATH": str(tmp_path / "vectors"), "ASSISTANT_HOME": str(tmp_path), "AGENT_API_HOSTS": "127.0.0.1",
            "EGRESS_ALLOWED_HOSTS": "127.0.0.1", "DEBUG_MODE": "true", "STAGE_COOL_DOWN_S": "0.1",
            "RETRY_LONG_FIRST_S": "0.5", "EXPIRES_AFTER_S": "8", "LLM_TIMEOUT": "5", "QUARANTINE_AFTER": "1000",
        }  # fmt: skip
        deployment = Deployment(kafka, database, topic_prefix, tmp_path, settings, forks=forks)
        await deployment.set_up(partitions=2)
        yield deployment
        deployment.close()


@pytest.fixture
async def site(deployment: Deployment) -> AsyncIterator[str]:
    """Another system: says its path's last word as a status, and something in confidence; its address."""

    async def handle(request: web.Request) -> web.Response:
        status = int(request.match_info["status"])
        to = {"location": f"http://127.0.0.1:1/{TOOL_OUTPUT}"} if status == 302 else None
        return web.json_response({"said": TOOL_OUTPUT}, status=status, headers=to)

    app = web.Application()
    app.router.add_route("*", f"/{TOOL_INPUT}/{{status}}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    deployment.environment["EGRESS_ALLOWED_PORTS"] = f"{port},1"
    yield f"http://127.0.0.1:{port}/{TOOL_INPUT}"
    await runner.cleanup()


async def agents(client: httpx.AsyncClient, api: Api, site: str) -> list[httpx.Response]:
    """Tools that answer, fail, are away, refused or not there at all; models that say nonsense; goals that are none."""
    get = [call("external_api", THOUGHT, url=f"{site}/{status}") for status in (200, 302, 400, 500)]
    away = call("external_api", THOUGHT, url=f"http://127.0.0.1:1/{TOOL_INPUT}")
    foreign = call("external_api", THOUGHT, url=f"http://{TOOL_INPUT}.example/{TOOL_INPUT}")
    no_url = call("external_api", THOUGHT, url=TOOL_INPUT, body=TOOL_INPUT)
    none_such, attack = (
        call(TOOL_INPUT, THOUGHT, of=TOOL_INPUT),
        call("summary", THOUGHT, text=f"{ATTACK} {TOOL_INPUT}"),
    )
    searched = [call(name, THOUGHT, query=TOOL_INPUT) for name in ("search", "vector_search")]
    for end, says in {
        "reads": [*get, finish(ANSWER)], "fails": [away, foreign, no_url, none_such, attack, finish(ANSWER)],
        "searches": [*searched, finish(f"{ANSWER} {TOOL_OUTPUT}")], "repeats": [none_such], "nonsense": [THOUGHT],
        "shapes": [json.dumps({"thought": [THOUGHT], "action": {THOUGHT: 1}})], "breaks": ["[mode=garbage]"],
        "writes": [call("external_api", THOUGHT, method="POST", url=f"{site}/200", body={TOOL_INPUT: TOOL_INPUT})],
    }.items():  # fmt: skip
        api.scripts[end] = says
    replies = []
    for goal in (*api.scripts, "[mode=garbage] x", "[mode=500] x", "[mode=hang] x", f"{ATTACK} x"):
        body = {"goal": f"{GOAL} {goal}", "agent_id": "mine", "max_steps": 8, "timeout": 2}
        replies.append(await client.post("/agents/run", json=body))
    wrong: list[dict[str, Any]] = [
        {"goal": [GOAL]}, {"goal": GOAL, "agent_id": 1}, {"goal": GOAL * 3000}, {"provider": "nobody"}
    ]  # fmt: skip
    for one in wrong:
        replies += [await client.post("/agents/run", json={"goal": GOAL, "agent_id": "mine"} | one)]
    replies.append(await client.post("/chat/smart/run", params={"query": GOAL, "generation_config": f"{{{GOAL}"}))
    replies.append(await client.post("/chat/smart/run", params={"query": GOAL, "provider": "nobody"}))
    replies.append(await client.post("/chat/smart/run", json={"query": f"[mode=500] {GOAL}", "timeout": 2}))
    return replies


async def voices(client: httpx.AsyncClient) -> list[httpx.Response]:
    says = [f"[mode={mode}] {SPEECH}" for mode in ("garbage", "503", "422", "silent")] + [SPEECH, f"{ATTACK} {SPEECH}"]
    bodies: list[dict[str, Any]] = [{"prompt": said, "instruct": MANNER, "timeout": 2} for said in says]
    bodies += [{"prompt": [SPEECH], "instruct": {MANNER: 1}}, {"prompt": SPEECH * 1000},
               {"prompt": SPEECH, "instruct": MANNER * 100}, {"prompt": SPEECH, "speaker": "Nobody"}]  # fmt: skip
    return [await client.post(path, json=body) for body in bodies for path in ("/tts/", "/tts/async")]


async def lessons(client: httpx.AsyncClient) -> list[httpx.Response]:
    """Examples, and trainings whose server fails."""
    given = [{"instruction": f"[mode=500] {LESSON}", "input": f"{LESSON} {n}", "output": LESSON} for n in range(5)]
    given += [{"instruction": LESSON, "output": f"{ATTACK} {LESSON}"}]
    wrong = [{"instruction": [LESSON], "output": {LESSON: 1}}, {"instruction": LESSON, "output": " "},
             {"instruction": LESSON * 1000, "output": LESSON}]  # fmt: skip
    replies = [await client.post("/instruction/smart/add", json=one) for one in (*given, *wrong)]

    async def learnt() -> bool:
        return len((await client.get("/instruction/examples", params={"text": LESSON})).json()["items"]) == 5

    await until(learnt)
    replies.append(await client.get("/instruction/examples", params={"text": LESSON, "limit": LESSON}))
    body = {"name": "mine", "provider": "qwen3vl", "timeout": 3}
    return [*replies, await client.post("/instruction/train", json=body)]


async def documents(client: httpx.AsyncClient) -> list[httpx.Response]:
    """Files that are taken, and that are not; and what is asked of them."""
    name, replies = f"{FILE_NAME}.pdf", []
    for content in (
        f"{CONTENT} tells of bees.".encode(), f"[mode=400] {CONTENT}".encode(), f"[mode=few] {CONTENT}".encode(),
        f"%PDF-1.7\n{CONTENT}".encode(), b"", f"\x7fELF\x02\x01\x01{CONTENT}".encode(), f"PK\x03\x04{CONTENT}".encode(),
        f"{ATTACK} {CONTENT}".encode(),
    ):  # fmt: skip
        files = {"file": (name, content)}
        replies.append(await client.post("/ingestion/ingest", files=files, params={"wait": content[:6] != b"[mode="}))
    replies.append(await client.post("/payloads", files={"file": (name, b"")}))
    replies.append(await client.post("/ingestion/ingest", content=CONTENT, params={"source": FILE_NAME * 99}))
    asked: list[Any] = [
        QUESTION,
        f"[mode=500] {QUESTION}",
        f"[mode=garbage] {QUESTION}",
        f"{ATTACK} {QUESTION}",
        [QUESTION],
    ]
    replies += [await client.post("/chat/rag", json={"question": one, "timeout": 2}) for one in asked]
    replies.append(await client.post("/chat/rag", json={"question": QUESTION, "top_k": QUESTION}))
    for query in (QUERY, f"[mode=500] {QUERY}", f"{ATTACK} {QUERY}"):
        given: dict[str, Any] = {"q": query, "query": query, "timeout": 2}
        replies += [await client.post("/embeddings/search", params=given), await client.get("/search/", params=given)]
    replies.append(await client.get("/search/", params={"q": QUERY, "k": QUERY, "mode": QUERY, "document_id": QUERY}))
    return replies


def broken(example: Any) -> list[bytes]:
    """An event as it should be but for one of its fields, which says something; and what is none at all."""
    said = {EVENT: [EVENT]}
    found = [{**example, name: wrong} for name in example for wrong in (said, EVENT)]
    if isinstance(example.get("request"), dict):
        found += [{**example, "request": {**example["request"], name: said}} for name in example["request"]]
    values = [EVENT.encode(), f'{{"{EVENT}'.encode(), *(json.dumps(one).encode() for one in found)]
    return values[:MOST_WRONG]


async def wrong_events(deployment: Deployment) -> int:
    """On each topic of these stages; how many."""
    sending: list[Awaitable[Any]] = []
    async with AIOKafkaProducer(bootstrap_servers=deployment.kafka.bootstrap) as producer:
        for topic in ("agent-step-requested", "tool-call-requested", "speech-requested", "example-received",
                      "training-requested", "retrieval-requested", "document-received", "chunks-prepared",
                      "embedding-requested-openai"):  # fmt: skip
            folder, name = ROOT / "tests" / "examples" / topic.removesuffix("-openai"), deployment.prefix + topic
            example = json.loads(min(folder.glob("*.json")).read_text())["value"]
            headers = [("ce_id", b"1"), ("ce_source", b"x"), ("ce_specversion", b"1.0"), ("ce_type", topic.encode())]
            sending += [await producer.send(name, value, key=b"k", headers=headers) for value in broken(example)]
        await asyncio.gather(*sending)
    return len(sending)


async def test_what_is_said_to_any_stage_is_written_nowhere(deployment: Deployment, api: Api, site: str) -> None:
    ingress, worker = deployment.start("ingress"), deployment.worker(ROLES)
    await deployment.ready(within_s=120)
    async with client_of(ingress) as client:
        client.headers.update(await register(client, f"user-{uuid.uuid4().hex[:6]}"))

        async def offered() -> bool:
            return bool((await client.get("/tts/speakers")).json()["items"])

        await until(offered)
        wrong = await wrong_events(deployment)
        asked = await asyncio.gather(agents(client, api, site), voices(client), lessons(client), documents(client))
        replies = [reply for some in asked for reply in some]

        async def waiting() -> bool:
            rows = await deployment.rows()
            waits = [row for row in rows if row["status"] == "pending"]
            for row in waits:
                await client.post(f"/agents/{row['job_id']}/reject")
            return not waits

        await until(waiting, within_s=60)
        errors = [reply for reply in replies if reply.status_code >= 400]
        views = [await client.get(f"/jobs/{row['job_id']}") for row in await deployment.rows()]
    # All of it has happened.
    kinds = {(row["kind"], row["status"]) for row in await deployment.rows()}
    assert kinds >= {
        (kind, status) for kind in ("agent", "speech", "document", "rag") for status in ("completed", "error")
    }
    assert {("example", "completed"), ("training", "error")} <= kinds, kinds
    said_in_jobs = "".join(view.text for view in views)
    assert len(errors) > 20

    async with plain_client() as client:
        metrics = [(await client.get(f"{process.http}/metrics")).text for process in (ingress, worker)]
    letters = await deployment.records("dead-letters")
    assert len(letters) > wrong / 2
    headers = [header for letter in letters for header in letter.headers]
    written = {
        "logs": "\n".join(process.log.read_text() for process in deployment.processes), "metrics": "\n".join(metrics),
        "reasons": "\n".join(f"{name}={value.decode()}" for name, value in headers if name.startswith("dlq-")),
        "errors": "\n".join(f"{reply.headers} {reply.text}" for reply in errors),
        "heartbeats": "\n".join(str(record.value) for record in await deployment.records("worker-heartbeat")),
    }  # fmt: skip
    found = [(place, canary, around(text, spelt)) for place, text in written.items() for canary in CANARIES
             for spelt in spellings(canary) if spelt in text]  # fmt: skip
    assert not found, found
    assert {ANSWER, TOOL_OUTPUT} <= {one for one in CANARIES if one in said_in_jobs}  # it was theirs to hear
