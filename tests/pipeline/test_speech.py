"""Speech through the whole product: by REST and by topic, whose it is, what is refused, and kill -9 in mid-job."""

import json
import uuid
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas.ids import direct_job_id
from tests.conftest import KafkaForTests
from tests.deployment import Deployment, client_of, register
from tests.forks import Forks
from tests.pipeline.conftest import Hook, environment
from tests.pipeline.test_direct import SOURCE, cloud_event
from tests.pipeline.test_rest import problem
from tests.second_programs import opened_elsewhere
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.stand_ins.qwen_tts_api import QwenTtsStandIn
from tests.waiting import until
from tests.wav import hear

pytestmark = pytest.mark.integration
LONG = " ".join(f"This is sentence number {number}, and it is not the last one." for number in range(20))


@pytest.fixture
async def voice() -> AsyncIterator[QwenTtsStandIn]:
    async with QwenTtsStandIn() as voice:
        yield voice


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, api: OpenAIStandIn, voice: QwenTtsStandIn,
    forks: Forks,
) -> AsyncIterator[Deployment]:  # fmt: skip
    settings = environment(api.base_url) | {
        "ALLOWED_PROVIDERS": '["openai", "qwen-tts", "local"]', "TTS_API_URL": voice.base_url,
        "QWEN_TTS_BASE_URL": "http://127.0.0.1:1", "MAX_SPEECH_CHARS": "2000",
    }  # fmt: skip
    deployment = Deployment(kafka, database, topic_prefix, tmp_path, settings, forks=forks)
    await deployment.set_up(partitions=4)
    yield deployment
    deployment.close()


async def offered(client: httpx.AsyncClient) -> None:
    """Wait until the ingress has heard who speaks."""

    async def told() -> bool:
        return bool((await client.get("/tts/speakers")).json()["items"])

    await until(told)


async def test_speech_by_rest_and_by_topic(
    deployment: Deployment, voice: QwenTtsStandIn, hook: Hook, tmp_path: Path
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,speech,sink")
    await deployment.ready()
    async with client_of(ingress) as client:
        await offered(client)
        await it_waits_and_answers_with_a_file(client, voice, tmp_path)
        job_id = await a_job_has_its_audio_and_a_webhook(client, hook)
        await its_audio_is_its_users_alone(client, job_id)
        await a_signed_address_works_for_whoever_has_it(client, job_id)
        await the_same_key_is_the_same_speech(client, voice)
        await what_cannot_be_said_is_refused_with_what_can(client)
        await by_topic(client, deployment)
        items = (await client.get("/providers")).json()["items"]
        assert "qwen-tts" not in [item["name"] for item in items]  # it answers no prompts
        problem(await client.post("/chat/", json={"prompt": "x", "provider": "qwen-tts"}), 400, "no-such-provider")
    told = json.dumps([dict(row) for row in await deployment.rows()], default=str)
    for topic in ("speech-requested", "job-finished"):
        for record in await deployment.records(topic):
            assert len(record.value) < 10_000
            told += record.value.decode()
    assert "RIFF" not in told


async def job_of(client: httpx.AsyncClient, path: str, **options: Any) -> dict[str, Any]:
    """Once its end is stored, which may be after a waiting call has its answer."""

    async def found() -> dict[str, Any] | None:
        job: dict[str, Any] = (await client.get(path, **options)).json()
        return job if job["status"] == "completed" else None

    job: dict[str, Any] = await until(found)
    return job


async def it_waits_and_answers_with_a_file(client: httpx.AsyncClient, voice: QwenTtsStandIn, folder: Path) -> None:
    body = {"prompt": LONG, "speaker": "vivian", "language": "english", "instruct": "calmly"}
    reply = await client.post("/tts/", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "audio/wav"
    job_id = reply.headers["location"].removeprefix("/jobs/")
    assert reply.headers["content-disposition"] == f'attachment; filename="speech-{uuid.UUID(job_id)}.wav"'
    assert "ratelimit" in reply.headers
    heard = hear(reply.content)
    assert len(voice.asked) > 2  # piece by piece
    assert voice.asked[0] | {"text": ""} == {
        "text": "", "speaker": "Vivian", "language": "English", "instruct": "calmly",
    }  # fmt: skip
    assert " ".join(body["text"] for body in voice.asked) == LONG
    assert heard.seconds == pytest.approx(len(LONG) * 0.06, rel=0.1)
    assert heard.loudest > 7000
    for name, told in opened_elsewhere(reply.content, folder).items():  # by as many as this machine has
        assert (told.rate, told.channels) == (heard.rate, heard.channels), name
        assert told.seconds is None or told.seconds == pytest.approx(heard.seconds, abs=0.001), name
    job = await job_of(client, f"/jobs/{job_id}")
    assert job["kind"] == "speech"
    audio = job["result"]["audio"]
    assert (audio["size"], audio["sha256"]) == (len(reply.content), sha256(reply.content).hexdigest())
    assert audio["seconds"] == pytest.approx(heard.seconds, abs=0.001)
    assert (job["result"]["provider"], job["result"]["speaker"]) == ("qwen-tts", "Vivian")
    assert [attempt["provider"] for attempt in job["result"]["meta"]["attempts"]] == ["qwen-tts"]


async def a_job_has_its_audio_and_a_webhook(client: httpx.AsyncClient, hook: Hook) -> str:
    reply = await client.post("/tts/async", json={"prompt": "In a while.", "callback_url": hook.url})
    assert reply.status_code == 202, reply.text
    job_id: str = reply.json()["job_id"]
    await until(lambda: _has_come(hook))
    told = json.loads(hook.calls[0][1])["data"]
    assert (told["job_id"], told["result"]["speaker"]) == (job_id, "Vivian")
    async with httpx.AsyncClient(base_url=client.base_url) as nobody:
        heard = await nobody.get(told["audio_url"])
        assert sha256(heard.content).hexdigest() == told["result"]["audio"]["sha256"]
    audio = await client.get(f"/jobs/{job_id}/audio")
    assert audio.status_code == 200, audio.text
    assert sha256(audio.content).hexdigest() == told["result"]["audio"]["sha256"]
    return job_id


async def _has_come(hook: Hook) -> bool:
    return bool(hook.calls)


async def its_audio_is_its_users_alone(client: httpx.AsyncClient, job_id: str) -> None:
    mallory, alice = await register(client, "mallory"), await register(client, "alice")
    problem(await client.get(f"/jobs/{job_id}/audio", headers=mallory), 404, "not-found")
    theirs = (await client.post("/tts/", json={"prompt": "hers"}, headers=alice)).headers["location"]
    await job_of(client, theirs, headers=alice)
    assert (await client.get(f"{theirs}/audio", headers=alice)).status_code == 200
    assert (await client.get(f"{theirs}/audio")).status_code == 200  # an admin
    problem(await client.get(f"{theirs}/audio", headers=mallory), 404, "not-found")


async def a_signed_address_works_for_whoever_has_it(client: httpx.AsyncClient, job_id: str) -> None:
    url = (await job_of(client, f"/jobs/{job_id}"))["audio_url"]
    other = (await client.post("/tts/", json={"prompt": "another"})).headers["location"]
    async with httpx.AsyncClient(base_url=client.base_url) as nobody:
        assert hear((await nobody.get(url)).content).seconds > 0
        problem(await nobody.get(f"/jobs/{job_id}/audio"), 401, "not-authenticated")
        problem(await nobody.get(url.replace(f"/jobs/{job_id}", other)), 401, "not-authenticated")
        problem(await nobody.get(url.replace("expires=", "expires=9")), 401, "not-authenticated")
        problem(await nobody.get(url[:-1] + ("0" if url[-1] != "0" else "1")), 401, "not-authenticated")


async def the_same_key_is_the_same_speech(client: httpx.AsyncClient, voice: QwenTtsStandIn) -> None:
    replies = [
        await client.post("/tts/", json={"prompt": "once"}, headers={"idempotency-key": "speech-1"}) for _ in range(2)
    ]
    assert replies[0].content == replies[1].content
    assert replies[1].headers["idempotency-replayed"] == "true"
    assert voice.calls["once"] == 1


async def what_cannot_be_said_is_refused_with_what_can(client: httpx.AsyncClient) -> None:
    for path in ("/tts/", "/tts/async"):
        told = problem(await client.post(path, json={"prompt": "x", "speaker": "nobody"}), 400, "no-such-speaker")
        assert told["speakers"] == ["Vivian", "Serena", "Uncle_Fu"]
        told = problem(await client.post(path, json={"prompt": "x", "language": "Latin"}), 400, "no-such-language")
        assert "Chinese" in told["languages"]
        problem(await client.post(path, json={"prompt": "x" * 2001}), 400, "speech-too-long")
        told = problem(await client.post(path, json={"prompt": "x", "provider": "local"}), 400, "no-such-provider")
        assert told["providers"] == ["qwen-tts"]
    problem(await client.post("/tts/", json={"prompt": "[mode=silent]"}), 400, "nothing-to-say")
    problem(await client.post("/tts/", json={"prompt": "[mode=garbage]"}), 502, "provider-invalid-reply")
    problem(await client.post("/tts/", json={"prompt": "[mode=503]", "timeout": 5}), 502, "provider-http-503")
    listed = (await client.get("/tts/languages", params={"provider": "qwen-tts"})).json()
    assert [item["name"] for item in listed["items"]] == ["Auto", "Chinese", "English"]
    problem(await client.get("/tts/speakers", params={"provider": "openai"}), 400, "no-such-provider")


async def published(deployment: Deployment, request: dict[str, Any]) -> uuid.UUID:
    event_id = str(uuid.uuid4())
    value = {"user_id": "root", "kind": "speech", "request": request}
    headers = [(name, text.encode()) for name, text in cloud_event(event_id).items()]
    await deployment.publish("job-requested", json.dumps(value).encode(), b"root", headers)
    return direct_job_id(SOURCE, "root", event_id)


async def ended(deployment: Deployment, job_id: uuid.UUID) -> Any:
    async def row() -> Any:
        return (await deployment.finished_rows()).get(job_id)

    return await until(row, within_s=60)


async def by_topic(client: httpx.AsyncClient, deployment: Deployment) -> None:
    row = await ended(deployment, job_id := await published(deployment, {"prompt": "By topic."}))
    assert row["status"] == "completed", row["error"]
    assert hear((await client.get(f"/jobs/{job_id}/audio")).content).seconds == pytest.approx(9 * 0.06, abs=0.01)
    row = await ended(deployment, await published(deployment, {"prompt": "x", "speaker": "nobody"}))
    error = json.loads(row["error"])
    assert error["code"] == "no-such-speaker"
    assert "Serena" in error["message"]


async def test_speech_outlives_workers_that_are_killed(deployment: Deployment, voice: QwenTtsStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    first = deployment.worker("speech", WORKER_ID="speech")
    await deployment.ready()
    async with client_of(ingress) as client:
        await offered(client)
        text = "It is killed while this is said. [held]"
        job_id = uuid.UUID((await client.post("/tts/async", json={"prompt": text})).json()["job_id"])
        await until(lambda: voice.busy == 1)
        problem(await client.get(f"/jobs/{job_id}/audio"), 409, "not-finished")
        first.kill()
        await until(lambda: voice.busy == 0)
        voice.released.set()
        deployment.worker("speech", WORKER_ID="speech")
        row = await ended(deployment, job_id)
        assert row["status"] == "completed", row["error"]
        assert voice.calls[text] == 2
        assert hear((await client.get(f"/jobs/{job_id}/audio")).content).loudest > 7000
        outcomes = [one for one in await deployment.records("job-finished") if one.key == str(job_id).encode()]
        assert len(outcomes) == 1
