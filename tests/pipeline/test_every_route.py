"""Every route that the OpenAPI document has, those of later releases included: who gets in, and what is not there."""

import base64
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from processors.documents.document_ports import ChunkSize, HeldFile
from schemas.requests import TrainingRequest
from sinks.adapters import AdapterStore
from sinks.documents import PostgresDocuments
from sinks.pool import Pool
from tests.deployment import PASSWORD, client_of, register
from tests.factories import job
from tests.pictures import base64_of, png
from tests.pipeline.conftest import Running
from tests.pipeline.test_rest import problem
from tests.waiting import until

pytestmark = pytest.mark.integration
OPEN = {"/auth/login", "/livez", "/health", "/readyz", "/metrics"}


def routes(running: Running) -> list[tuple[str, str]]:
    """Method and path, with ids of nothing where one belongs."""
    paths: dict[str, Any] = httpx.get(f"{running.ingress.http}/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def filled(path: str, value: str) -> str:
    while "{" in path:
        path = path[: path.index("{")] + value + path[path.index("}") + 1 :]
    return path


async def test_all_but_a_few_need_a_token(running: Running) -> None:
    found = routes(running)
    assert len(found) > 12
    assert {path for _, path in found} >= OPEN
    async with httpx.AsyncClient(base_url=running.ingress.http) as client:
        for method, path in found:
            reply = await client.request(method, filled(path, str(uuid.uuid4())))
            if path in OPEN:
                assert reply.status_code in (200, 422), path
                continue
            problem(reply, 401, "not-authenticated")
            assert reply.headers["www-authenticate"] == "Bearer"


async def test_an_id_of_nothing_and_what_is_no_id_are_a_404(running: Running) -> None:
    with_id = [(method, path) for method, path in routes(running) if "{" in path]
    assert with_id
    async with client_of(running.ingress) as client:
        for method, path in with_id:
            for value in (str(uuid.uuid4()), "zzz", "0" * 400):
                problem(await client.request(method, filled(path, value), json={}), 404, "not-found")


async def a_job(alice: httpx.AsyncClient, _: Running) -> str:
    """One that has ended, so that its row is there for whoever would look."""
    job_id: str = (await alice.post("/chat/async", json={"prompt": "mine"})).json()["job_id"]

    async def ended() -> Any:
        return (await alice.get(f"/jobs/{job_id}")).json()["status"] == "completed"

    await until(ended)
    return job_id


async def a_comparison(alice: httpx.AsyncClient, _: Running) -> str:
    body = {"prompts": ["mine"], "variants": [{"provider": "openai"}]}
    return str((await alice.post("/compare", json=body)).json()["comparison_id"])


async def a_payload(alice: httpx.AsyncClient, _: Running) -> str:
    reply = await alice.post("/payloads", json={"image": base64_of(png())})
    return str(reply.json()["image"]["payload_id"])


async def an_api_key(alice: httpx.AsyncClient, _: Running) -> str:
    return str((await alice.post("/api-keys", json={"name": "mine"})).json()["id"])


async def a_memory(alice: httpx.AsyncClient, _: Running) -> str:
    """Of an agent that has done something, if only what no tool takes."""
    agent_id = f"agent-{uuid.uuid4().hex[:8]}"
    body = {"goal": "mine", "agent_id": agent_id, "max_steps": 1}
    job_id = (await alice.post("/agents/run", json=body)).json()["job_id"]

    async def ended() -> Any:
        return (await alice.get(f"/agents/{job_id}")).json()["status"] == "error"

    await until(ended)
    return agent_id


def user_id_of(alice: httpx.AsyncClient) -> str:
    claims = alice.headers["authorization"].split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"])


async def an_adapter(alice: httpx.AsyncClient, running: Running) -> str:
    """As the stage of trainings begins one."""
    pool, name = Pool(running.deployment.dsn, size=1), f"polite-{uuid.uuid4().hex[:6]}"
    of = job(kind="training", user_id=user_id_of(alice))
    await AdapterStore(pool).begin(of, TrainingRequest(name=name), provider="local", is_shared=False)
    await pool.close()
    return name


async def a_document(alice: httpx.AsyncClient, running: Running) -> str:
    """As the stages of documents begin one."""
    of = job(kind="document", user_id=user_id_of(alice))
    pool = Pool(running.deployment.dsn, size=1)
    file = HeldFile(Path("/nowhere"), 1, "a" * 64, "text/plain")
    begun = await PostgresDocuments(pool).begin(
        of, source="mine", payload_id=uuid.uuid4(), file=file, provider="openai", model="m", size=ChunkSize(512)
    )
    await pool.close()
    return str(begun.document_id)


async def an_example(alice: httpx.AsyncClient, _: Running) -> str:
    lesson = {"instruction": "Answer in one word.", "output": uuid.uuid4().hex}
    job_id = (await alice.post("/instruction/smart/add", json=lesson)).json()["job_id"]

    async def stored() -> Any:
        return (await alice.get(f"/jobs/{job_id}")).json().get("result")

    return str((await until(stored))["example_id"])


# What an id in a path is of: somebody's, who makes one here; or the admins', whom everybody else hears nothing from.
OWNED: dict[str, Callable[[httpx.AsyncClient, Running], Awaitable[str]]] = {
    "job_id": a_job, "comparison_id": a_comparison, "payload_id": a_payload, "key_id": an_api_key,
    "document_id": a_document, "example_id": an_example, "agent_id": a_memory, "name": an_adapter,
}  # fmt: skip
OF_ADMINS, OF_EVERYBODY = {"user_id", "partition", "offset"}, {"model"}
KNOWN = OWNED.keys() | OF_ADMINS | OF_EVERYBODY
NO_KEYS = {"/api-keys/{key_id}"}  # a key may not manage keys, its own neither
ASKED, MOST_ASKED = 9, 60
OWN_TO_AN_ANSWER = {"x-request-id", "date", "ratelimit"}  # each call that is counted leaves one less


def told(reply: httpx.Response) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
    """All that an answer says but for what no two answers share."""
    body = {name: value for name, value in reply.json().items() if name not in ("request_id", "instance")}
    headers = [(name, value) for name, value in reply.headers.items() if name.lower() not in OWN_TO_AN_ANSWER]
    return reply.status_code, body, headers


def names_in(path: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", path))


async def both_are_alike(who: httpx.AsyncClient, method: str, path: str, known: str) -> None:
    """Somebody else's id and one of nothing: what is answered, and how soon.

    What a machine is busy with only adds to a time. So the shortest of each are compared, and of more where they
    differ: a difference that is the code's own stays.
    """
    took: dict[str, list[float]] = {known: [], "": []}
    said = []
    for asked in range(MOST_ASKED):
        for value, times in took.items():
            began = time.perf_counter()
            reply = await who.request(method, filled(path, value or str(uuid.uuid4())), json={})
            times.append(time.perf_counter() - began)
            problem(reply, 404, "not-found")
            said.append(told(reply))
        known_s, unknown_s = map(min, took.values())
        if asked >= ASKED - 1 and abs(known_s - unknown_s) < max(0.005, 0.6 * unknown_s):
            break
    else:
        raise AssertionError(f"{method} {path}: {took}")
    assert said.count(said[0]) == len(said), (method, path)


async def test_another_users_id_is_as_unknown_on_every_route(running: Running) -> None:
    with_id = [(method, path) for method, path in routes(running) if "{" in path]
    unknown = {path for _, path in with_id if not names_in(path) <= KNOWN}
    assert not unknown, f"say in OWNED, OF_ADMINS or OF_EVERYBODY whose the ids of {unknown} are"
    assert {name for _, path in with_id for name in names_in(path)} == KNOWN
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(client_of(running.ingress))
        alice, mallory, by_key = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=running.ingress.http, timeout=30))
            for _ in range(3)
        ]
        alice.headers.update(await register(admin, f"alice-{uuid.uuid4().hex[:6]}"))
        mallory.headers.update(await register(admin, f"mallory-{uuid.uuid4().hex[:6]}"))
        made = (await mallory.post("/api-keys", json={"name": "tool"})).json()
        by_key.headers["authorization"] = f"Bearer {made['key']}"
        theirs = {name: await make(alice, running) for name, make in OWNED.items()}
        for method, path in with_id:
            if not names_in(path) <= OWNED.keys():
                continue
            (name,) = names_in(path)
            for who in (mallory,) if path in NO_KEYS else (mallory, by_key):
                await both_are_alike(who, method, path, theirs[name])
        # Nothing that she tried has done anything, and it was really there.
        assert (await alice.get(f"/jobs/{theirs['job_id']}")).json()["status"] == "completed"
        assert (await alice.get(f"/compare/{theirs['comparison_id']}")).json()["status"] != "cancelling"
        assert (await alice.get("/api-keys")).json()["items"][0]["id"] == theirs["key_id"]
        for path in (
            f"/payloads/{theirs['payload_id']}", f"/api-keys/{theirs['key_id']}", f"/documents/{theirs['document_id']}",
            f"/instruction/examples/{theirs['example_id']}",
            f"/agents/memory/{theirs['agent_id']}", f"/instruction/adapters/{theirs['name']}",
            f"/jobs/{theirs['job_id']}",
        ):  # fmt: skip
            assert (await alice.delete(path)).status_code == 204


def image(payload_id: str) -> dict[str, Any]:
    return {"payload_id": payload_id, "media_type": "image/png", "size": 68, "sha256": "0" * 64}


# Where else than in a path an id is said: whose, and a call with it. What a filter does not find is an empty answer.
ELSEWHERE: list[tuple[str, str, Callable[[str], dict[str, Any]]]] = [
    ("payload_id", "POST /chat/", lambda it: {"json": {"prompt": "x", "image": image(it)}}),
    ("payload_id", "POST /chat/async", lambda it: {"json": {"prompt": "x", "image": image(it)}}),
    ("name", "POST /chat/", lambda it: {"json": {"prompt": "x", "generation_config": {"adapter": it, "mode": "lora"}}}),
    ("document_id", "GET /search/", lambda it: {"params": {"q": "mine", "document_id": it}}),
    ("document_id", "POST /embeddings/search", lambda it: {"params": {"query": "mine", "document_id": it}}),
    ("user_id", "POST /jobs/cancel", lambda it: {"json": {"user_id": it}}),
    ("user_id", "GET /jobs/export", lambda it: {"params": {"user_id": it}}),
    ("user_id", "POST /webhooks/redeliver", lambda it: {"json": {
        "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "user_id": it}}),
]  # fmt: skip
COUNTED = {"retry-after", "content-length"}


async def test_another_users_id_in_a_body_or_a_query_is_as_unknown(running: Running) -> None:
    async with client_of(running.ingress) as admin, httpx.AsyncClient(base_url=running.ingress.http) as alice:
        alice.headers.update(await register(admin, f"alice-{uuid.uuid4().hex[:6]}"))
        mallory = await register(admin, f"mallory-{uuid.uuid4().hex[:6]}")
        theirs = {name: await OWNED[name](alice, running) for name in ("payload_id", "name", "document_id")}
        theirs["user_id"] = user_id_of(alice)
        for name, route, said in ELSEWHERE:
            method, _, path = route.partition(" ")
            answers = []
            for it in (theirs[name], f"polite-{uuid.uuid4().hex[:6]}" if name == "name" else str(uuid.uuid4())):
                reply = await admin.request(method, path, headers=mallory, **said(it))
                found = json.loads(reply.text.replace(it, "the id"))
                if isinstance(found, dict):
                    found = {field: value for field, value in found.items() if field != "request_id"}
                headers = [one for one in reply.headers.multi_items() if one[0] not in OWN_TO_AN_ANSWER | COUNTED]
                answers.append((reply.status_code, found, headers))
            assert answers[0] == answers[1], route
            status, found, _ = answers[0]
            assert status in (400, 403, 404) or (found if isinstance(found, list) else found["results"]) == [], answers


async def test_what_is_the_admins_is_refused_alike_whatever_the_id(running: Running) -> None:
    async with client_of(running.ingress) as admin:
        user_id = f"mallory-{uuid.uuid4().hex[:6]}"
        mallory = await register(admin, user_id)
        for method, path in routes(running):
            if not names_in(path) & OF_ADMINS:
                continue
            said = []
            for value in ("root", user_id, "0", str(uuid.uuid4())):
                if "{user_id}" not in path and not value.isdigit():
                    continue
                reply = await admin.request(method, filled(path, value), headers=mallory, json={})
                problem(reply, 403, "not-allowed")
                said.append(told(reply))
            assert said.count(said[0]) == len(said), (method, path)
        assert (await admin.get(f"/users/{user_id}")).json()["disabled"] is False


async def test_a_422_is_documented_as_it_comes(running: Running) -> None:
    async with httpx.AsyncClient(base_url=running.ingress.http) as client:
        document = (await client.get("/openapi.json")).json()
    described = [
        (path, methods[method]["responses"]["422"]["content"])
        for path, methods in document["paths"].items()
        for method in methods
        if "422" in methods[method]["responses"]
    ]
    assert described
    for path, content in described:
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}, path
    schema = document["components"]["schemas"]["Problem"]
    async with client_of(running.ingress) as client:
        body = problem(await client.post("/chat/", json={}), 422, "invalid-body")
    assert body.keys() <= schema["properties"].keys()
    assert set(schema["required"]) <= body.keys()
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_a_login_by_form_is_one_like_the_other(running: Running) -> None:
    async with httpx.AsyncClient(base_url=running.ingress.http) as client:
        form = {"username": "root", "password": PASSWORD, "grant_type": "password", "scope": ""}
        reply = await client.post("/auth/token", data=form)  # what Swagger's dialog sends
        assert reply.status_code == 200, reply.text
        assert reply.json()["token_type"] == "bearer"
        headers = {"authorization": f"Bearer {reply.json()['access_token']}"}
        assert (await client.get("/jobs", headers=headers)).status_code == 200
        problem(await client.post("/auth/token", data=form | {"password": "wrong"}), 401, "wrong-credentials")
        problem(await client.post("/auth/token", data={"username": "root"}), 422, "invalid-body")


@pytest.mark.parametrize("change", [{"disabled": True}, {"token_epoch": 1}])
async def test_a_token_of_a_disabled_user_or_an_older_epoch_is_none(running: Running, change: dict[str, Any]) -> None:
    name = f"former-{uuid.uuid4().hex[:6]}"
    async with client_of(running.ingress) as client:
        headers = await register(client, name)
        assert (await client.get("/jobs", headers=headers)).status_code == 200
        value = json.dumps({"user_id": name, "role": "user", **change}).encode()
        await running.deployment.publish("user-updated", value, name.encode())

        async def shut_out() -> bool:
            return (await client.get("/jobs", headers=headers)).status_code == 401

        await until(shut_out, within_s=5)
        problem(await client.post("/chat/", json={"prompt": "x"}, headers=headers), 401, "not-authenticated")
