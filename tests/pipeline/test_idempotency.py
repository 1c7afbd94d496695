"""The same request twice with one Idempotency-Key: one job, also where the ingress or Postgres fails in between."""

import asyncio
import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from ingress.submitting.idempotency import fingerprint
from schemas.ids import JobIds
from tests.conftest import SECRET, PostgresForTests
from tests.deployment import Deployment, client_of, register
from tests.pipeline.conftest import Running
from tests.pipeline.test_rest import problem
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


def keyed(key: str | None = None) -> dict[str, str]:
    return {"idempotency-key": key or uuid.uuid4().hex}


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async def view() -> Any:
        found = (await client.get(f"/jobs/{job_id}")).json()
        return found if found["status"] != "pending" else None

    found: dict[str, Any] = await until(view)
    return found


async def test_a_waiting_call_is_answered_again_from_the_same_job(running: Running) -> None:
    prompt, headers = f"keyed {uuid.uuid4()}", keyed()
    async with client_of(running.ingress) as client:
        first = await client.post("/chat/", json={"prompt": prompt, "timeout": 20}, headers=headers)
        again = await client.post("/chat/", content=b'{"timeout":20,  "prompt":"%s"}' % prompt.encode(),
                                  headers={**headers, "content-type": "application/json"})  # fmt: skip
        assert first.status_code == again.status_code == 200
        assert first.text == again.text
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        for other in ({"prompt": prompt}, {"prompt": "x", "timeout": 20}):
            problem(await client.post("/chat/", json=other, headers=headers), 422, "idempotency-key-reused")
        reply = await client.post("/chat/async", json={"prompt": prompt, "timeout": 20}, headers=headers)
        problem(reply, 422, "idempotency-key-reused")
        name = f"other-{uuid.uuid4().hex[:6]}"
        reply = await client.post("/chat/", json={"prompt": "x"}, headers={**headers, **await register(client, name)})
        assert reply.status_code == 200  # another user's keys are other keys
    assert running.calls()[prompt] == 1


@pytest.mark.parametrize(("path", "more"), [("/chat/async", {"timeout": 5}), ("/inference/", {"temperature": 0.1})])
async def test_an_accepted_job_is_told_again(running: Running, path: str, more: dict[str, Any]) -> None:
    prompt, headers = f"keyed {uuid.uuid4()}", keyed()
    async with client_of(running.ingress) as client:
        first = await client.post(path, json={"prompt": prompt, **more}, headers=headers)
        await ended(client, first.json()["job_id"])
        again = await client.post(path, json={"prompt": prompt, **more}, headers=headers)
        assert first.status_code == again.status_code == 202
        assert first.json() == again.json()
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotency-replayed"] == "true"
    assert running.calls()[prompt] == 1


@pytest.mark.parametrize("path", ["/chat/", "/chat/async"])
async def test_twenty_at_once_make_one_job(running: Running, path: str) -> None:
    prompt, headers = f"at once {uuid.uuid4()} [delay=0.3]", keyed()
    async with client_of(running.ingress) as client:
        replies = await asyncio.gather(
            *(client.post(path, json={"prompt": prompt}, headers=headers) for _ in range(20))
        )
        assert {reply.status_code for reply in replies} == {200 if path == "/chat/" else 202}
        assert len({reply.text for reply in replies}) == 1
        assert sum("idempotency-replayed" not in reply.headers for reply in replies) == 1
        if path == "/chat/async":
            await ended(client, replies[0].json()["job_id"])
    assert running.calls()[prompt] == 1


async def test_an_error_is_the_same_again_but_400_and_429_free_the_key(running: Running) -> None:
    prompt, headers = f"[mode=garbage] {uuid.uuid4()}", keyed()
    async with client_of(running.ingress) as client:
        for _ in range(2):
            reply = await client.post("/chat/", json={"prompt": prompt}, headers=headers)
            problem(reply, 502, "provider-invalid-reply")
        assert reply.headers["idempotency-replayed"] == "true"
        assert running.calls()[prompt] == 1

        headers = keyed()
        for _ in range(2):  # refused before anything is published
            reply = await client.post("/chat/", json={"prompt": "x", "provider": "local"}, headers=headers)
            problem(reply, 400, "no-such-provider")
        assert (await client.post("/chat/", json={"prompt": "x"}, headers=headers)).status_code == 200

        name = f"limited-{uuid.uuid4().hex[:6]}"
        limited = await register(client, name)
        await limit(running.deployment, name, 1)

        async def refused() -> bool:
            reply = await client.post("/chat/async", json={"prompt": "y"}, headers=limited)
            return reply.status_code == 429

        await until(refused)
        for path in ("/chat/", "/chat/async"):
            both, jobs = {**limited, **keyed()}, set()
            for _ in range(2):
                reply = await client.post(path, json={"prompt": "z"}, headers=both)
                jobs.add(problem(reply, 429, "rate-limited")["job_id"])
                assert "idempotency-replayed" not in reply.headers
            assert len(jobs) == 2  # asked anew each time


async def limit(deployment: Deployment, name: str, requests: int) -> None:
    value = {"user_id": name, "role": "user", "rate_limit_requests": requests}
    await deployment.publish("user-updated", json.dumps(value).encode(), name.encode())


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "x" * 256, "\u00e9".encode("latin-1")])
async def test_what_is_no_key_is_a_400(running: Running, key: str | bytes) -> None:
    async with client_of(running.ingress) as client:
        raw = key if isinstance(key, bytes) else key.encode()
        headers = {b"idempotency-key": raw, b"authorization": client.headers["authorization"].encode()}
        problem(await client.post("/chat/", json={"prompt": "x"}, headers=headers), 400, "idempotency-key-invalid")
        twice = [("idempotency-key", "a"), ("idempotency-key", "b")]
        problem(await client.post("/chat/", json={"prompt": "x"}, headers=twice), 400, "idempotency-key-invalid")
        reply = await client.post("/inference/", json={"prompt": "x"}, headers=keyed(uuid.uuid4().hex * 7 + "~" * 31))
        assert reply.status_code == 202


# --- what a crash leaves behind: the row as the ingress wrote it before it was to publish ---


async def left_behind(
    deployment: Deployment, *, key: str, path: str, body: dict[str, Any], user_id: str = "root", ago_s: float = 0
) -> uuid.UUID:
    job_id = JobIds([SECRET]).mint(user_id)
    connection = await asyncpg.connect(deployment.dsn)
    await connection.execute(
        """INSERT INTO idempotency_keys (user_id, key, fingerprint, job_id, published_at)
           VALUES ($1, $2, $3, $4, now() - make_interval(secs => $5))""",
        user_id, key, fingerprint("POST", path, json.dumps(body).encode()), job_id, ago_s,
    )  # fmt: skip
    await connection.close()
    return job_id


async def published(deployment: Deployment, job_id: uuid.UUID, body: dict[str, Any], user_id: str = "root") -> None:
    """As the ingress would have done before it died."""
    value = {"user_id": user_id, "kind": "chat", "request": body, "expires_after": 30}
    headers = {"ce_id": str(job_id), "ce_source": "/ingress", "ce_specversion": "1.0", "ce_type": "job-requested"}
    await deployment.publish(
        "job-requested", json.dumps(value).encode(), user_id.encode(), [(k, v.encode()) for k, v in headers.items()]
    )


@pytest.mark.parametrize("path", ["/chat/", "/chat/async"])
async def test_a_crash_before_publishing_is_healed_by_whoever_asks_again(
    deployment: Deployment, api: OpenAIStandIn, path: str
) -> None:
    ingress, _ = deployment.start("ingress", PUBLISH_TIMEOUT_S="2"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    body = {"prompt": "left behind"}
    job_id = await left_behind(deployment, key="k", path=path, body=body)
    async with client_of(ingress) as client:
        replies = await asyncio.gather(*(client.post(path, json=body, headers=keyed("k")) for _ in range(5)))
        assert {reply.status_code for reply in replies} == {200 if path == "/chat/" else 202}
        assert all(reply.headers["idempotency-replayed"] == "true" for reply in replies)
        assert (await ended(client, str(job_id)))["status"] == "completed"
    assert api.calls == {"left behind": 1}
    assert len(await deployment.records("job-requested")) == 1
    assert [row["job_id"] for row in await deployment.rows()] == [job_id]


async def test_a_crash_after_publishing_leaves_one_job(deployment: Deployment, api: OpenAIStandIn) -> None:
    """Told by the job's row where the sink is there; where it is not, the same event twice is worked on once."""
    ingress, _ = deployment.start("ingress", PUBLISH_TIMEOUT_S="2"), deployment.worker("gate,completion")
    await deployment.ready()
    body = {"prompt": "twice [delay=2]"}
    job_id = await left_behind(deployment, key="k", path="/chat/", body=body, ago_s=60)
    await published(deployment, job_id, body)
    await until(lambda: api.busy == 1)
    async with client_of(ingress) as client:
        reply = await client.post("/chat/", json=body, headers=keyed("k"))
        assert reply.status_code == 200
        assert len(await deployment.records("job-requested")) == 2
        assert len(await deployment.records("job-admitted")) == 2
        sink = deployment.worker("sink")
        await deployment.ready(sink)
        assert (await ended(client, str(job_id)))["status"] == "completed"
        again = await client.post("/chat/", json=body, headers=keyed("k"))
        assert again.json() == reply.json()
        # With the row there, nothing is published again.
        connection = await asyncpg.connect(deployment.dsn)
        await connection.execute("UPDATE idempotency_keys SET accepted_at = NULL, published_at = to_timestamp(0)")
        await connection.close()
        assert (await client.post("/chat/", json=body, headers=keyed("k"))).json() == reply.json()
    assert len(await deployment.records("job-requested")) == 2
    assert api.calls == {body["prompt"]: 1}
    assert len(await deployment.rows()) == 1


@pytest.mark.long
async def test_an_ingress_killed_under_load_makes_no_second_job(deployment: Deployment, api: OpenAIStandIn) -> None:
    deployment.environment |= {"PUBLISH_TIMEOUT_S": "2"}
    victim, other = deployment.start("ingress"), deployment.start("ingress")
    deployment.worker("gate,completion,sink")
    await deployment.ready()
    prompts = [f"question {n}" for n in range(300)]

    async def ask(client: httpx.AsyncClient, prompt: str) -> str | None:
        try:
            reply = await client.post("/chat/async", json={"prompt": prompt}, headers=keyed(prompt.replace(" ", "-")))
        except httpx.HTTPError:  # nobody knows whether it was accepted
            return None
        job_id: str | None = reply.json()["job_id"] if reply.status_code == 202 else None
        return job_id

    async with client_of(victim) as client, client_of(other) as second:
        asking = [asyncio.create_task(ask(client, prompt)) for prompt in prompts]
        await until(lambda: sum(task.done() for task in asking) > 50)
        victim.kill()
        told = dict(zip(prompts, await asyncio.gather(*asking), strict=True))
        assert None in told.values()

        async def insist(prompt: str) -> str:
            """A slow answer is no answer, and the same key asks for the same job."""
            return str(await until(lambda: ask(second, prompt), within_s=60))

        again = dict(zip(prompts, await asyncio.gather(*map(insist, prompts)), strict=True))
        assert all(job_id in (None, again[prompt]) for prompt, job_id in told.items())
        await until(lambda: len(api.calls) == len(prompts))

        async def all_ended() -> bool:
            rows = await deployment.rows()
            return len(rows) >= len(prompts) and all(row["status"] == "completed" for row in rows)

        await until(all_ended)
    assert {str(row["job_id"]) for row in await deployment.rows()} == set(again.values())
    assert set(api.calls.values()) == {1}


async def test_a_second_publication_that_meets_the_limit_yields_to_the_first(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    deployment.environment |= {"RATE_LIMIT_USER_REQUESTS": "1"}
    ingress, _ = deployment.start("ingress", PUBLISH_TIMEOUT_S="2"), deployment.worker("gate,completion")
    await deployment.ready()
    async with client_of(ingress) as admin:
        await register(admin, "alice")
    body = {"prompt": "first [delay=3]"}
    job_id = await left_behind(deployment, key="k", path="/chat/", body=body, user_id="alice", ago_s=60)
    await published(deployment, job_id, body, "alice")
    await until(lambda: api.busy == 1)
    async with client_of(ingress, "alice") as client:
        reply = await client.post("/chat/", json=body, headers=keyed("k"))
        assert problem(reply, 429, "rate-limited")["job_id"] == str(job_id)
        # Not free: the first one's job may still run, and another one would be paid for beside it.
        await deployment.ready(deployment.worker("sink"))

        async def answered() -> Any:
            reply = await client.post("/chat/", json=body, headers=keyed("k"))
            return reply if reply.status_code == 200 else None

        reply = await until(answered)
        assert reply.json()["result"]["text"] == f"Answer to: {body['prompt']}"
        assert reply.headers["idempotency-replayed"] == "true"

        async def stored() -> bool:  # until then the row tells of the refusal
            return bool((await client.get(f"/jobs/{job_id}")).json()["status"] == "completed")

        await until(stored)
    assert api.calls == {body["prompt"]: 1}
    assert [row["job_id"] for row in await deployment.rows() if row["user_id"] == "alice"] == [job_id]


async def test_without_postgres_only_keyed_requests_are_refused(
    deployment: Deployment, postgres: PostgresForTests, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,completion,sink")
    await deployment.ready()
    name = urlsplit(deployment.dsn).path[1:]
    other = await asyncpg.connect(postgres.dsn)
    async with client_of(ingress) as client:
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        try:
            reply = await client.post("/chat/", json={"prompt": "keyed"}, headers=keyed("k"))
            problem(reply, 503, "postgres-unavailable")
            assert "retry-after" in reply.headers
            assert (await client.post("/chat/", json={"prompt": "plain"})).status_code == 200
        finally:
            await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            await other.close()
        assert api.calls == {"plain": 1}

        async def taken() -> bool:
            reply = await client.post("/chat/", json={"prompt": "keyed"}, headers=keyed("k"))
            return reply.status_code == 200

        await until(taken)
    assert api.calls == {"plain": 1, "keyed": 1}
