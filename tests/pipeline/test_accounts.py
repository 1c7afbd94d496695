"""Users, keys and sessions from the outside, at two replicas: who is out is out everywhere, within five seconds."""

import asyncio
import json
import statistics
import time
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest

from tests.deployment import PASSWORD, Process, client_of, plain_client, register
from tests.pipeline.accounts_scene import (
    WITHIN_S,
    bearer,
    code_of,
    failures,
    log_in,
    name,
    new_key,
    rows_of,
    shut_out,
)
from tests.pipeline.conftest import Running
from tests.pipeline.test_rest import problem
from tests.quick_hashes import DEAR_HASHES
from tests.sse import Sse
from tests.waiting import until

pytestmark = pytest.mark.integration
NEW_PASSWORD = "staple battery horse"
ATTEMPTS = 12


# --- admins and users ---


async def test_an_admin_lists_changes_and_deletes_users(here: httpx.AsyncClient, there: httpx.AsyncClient) -> None:
    user_id = name("alice")
    await register(here, user_id)
    shown = (await here.get(f"/users/{user_id}")).json()
    assert shown == {
        "user_id": user_id, "role": "user", "disabled": False, "rate_limit_requests": None, "tokens_per_minute": None,
        "max_in_flight": None, "max_pending": None, "created_at": shown["created_at"],
    }  # fmt: skip
    seen, cursor = [], None
    while True:
        page = (await here.get("/users", params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += [item["user_id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert user_id in seen
    assert seen == sorted(set(seen))
    limits = {"rate_limit_requests": 7, "tokens_per_minute": 100, "max_in_flight": 2, "max_pending": 9}
    reply = await here.patch(f"/users/{user_id}", json=limits)
    assert reply.json() == shown | limits
    assert (await here.patch(f"/users/{user_id}", json={"max_pending": None})).json()["max_pending"] is None
    for bad in ({"max_pending": -1}, {"disabled": None}, {"disabled": "yes"}, {"role": "king"}, {"password": "short"},
                {"password": None}, {"user_id": "root"}, {"token_epoch": 0}, {"max_in_flight": True}):  # fmt: skip
        problem(await here.patch(f"/users/{user_id}", json=bad), 422, "invalid-body")
    assert (await here.delete(f"/users/{user_id}")).status_code == 204
    for gone in (here.get(f"/users/{user_id}"), here.delete(f"/users/{user_id}"),
                 here.patch(f"/users/{user_id}", json={"disabled": False})):  # fmt: skip
        problem(await gone, 404, "not-found")
    problem(await log_in(there, user_id), 401, "wrong-credentials")
    again = {"user_id": user_id, "password": PASSWORD}
    problem(await here.post("/auth/register", json=again), 400, "user-exists")
    assert user_id not in str((await here.get("/users", params={"limit": 100})).json())
    problem(await here.get("/users", params={"cursor": "!"}), 400, "invalid-cursor")


async def test_the_last_admin_cannot_be_locked_out(here: httpx.AsyncClient) -> None:
    for change in ({"disabled": True}, {"role": "user"}):
        problem(await here.patch("/users/root", json=change), 409, "last-admin")
    problem(await here.delete("/users/root"), 409, "last-admin")
    assert (await here.get("/users/root")).json()["role"] == "admin"


async def test_users_manage_nobody(here: httpx.AsyncClient) -> None:
    user_id = name("alice")
    headers = await register(here, user_id)
    for method, path in (("GET", "/users"), ("GET", f"/users/{user_id}"), ("PATCH", f"/users/{user_id}"),
                         ("DELETE", "/users/root"), ("GET", "/admin/login-failures")):  # fmt: skip
        problem(await here.request(method, path, headers=headers, json={}), 403, "not-allowed")


async def test_another_role_is_in_force_everywhere_and_old_tokens_are_not(
    here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    user_id = name("alice")
    old = await register(here, user_id)
    assert (await here.patch(f"/users/{user_id}", json={"role": "admin"})).status_code == 200
    await shut_out([here, there], old, since=time.monotonic())
    new = bearer((await log_in(there, user_id)).json()["access_token"])
    assert (await there.get("/users", headers=new)).status_code == 200
    await here.patch(f"/users/{user_id}", json={"role": "user"})
    await shut_out([here, there], new, since=time.monotonic())


# --- who is out is out ---


async def test_a_deleted_users_jobs_end_and_stay_the_admins(
    running: Running, here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    user_id = name("former")
    headers = await register(here, user_id)
    key = bearer((await new_key(here, headers))["key"])
    assert (await there.get("/jobs", headers=key)).status_code == 200
    body = {"prompt": f"[mode=hang] {user_id}"}
    job_id = (await there.post("/chat/async", json=body, headers=headers)).json()["job_id"]
    await until(lambda: running.counts()["busy"] == 1)
    began = time.monotonic()
    assert (await here.delete(f"/users/{user_id}")).status_code == 204

    async def has_ended() -> bool:
        return await code_of(here, job_id) == "user-disabled"

    await until(has_ended, within_s=WITHIN_S)
    for each in (headers, key):
        await shut_out([here, there], each, since=began)
    assert running.counts()["busy"] == 0
    assert (await here.get("/jobs", params={"user_id": user_id})).json()["items"][0]["job_id"] == job_id


async def test_another_password_ends_sessions_and_streams_and_leaves_jobs_and_keys_alone(
    running: Running, other: Process, here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    user_id = name("alice")
    old = await register(here, user_id)
    key = bearer((await new_key(here, old))["key"])
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(plain_client(base_url=other.http, timeout=60, headers=each))
            for each in (old, key)
        ]
        ask = {"prompt": f"[tokens=200][pace=0.02] {user_id}", "stream": True}
        by_token = Sse()
        telling = asyncio.create_task(by_token.listen(clients[0], ask=ask))
        await until(lambda: by_token.text)
        by_key = asyncio.create_task(Sse().listen(clients[1], f"/jobs/{by_token.job_id}/stream"))
        wrong = {"old_password": NEW_PASSWORD, "new_password": NEW_PASSWORD}
        problem(await here.post("/auth/password", json=wrong, headers=old), 403, "wrong-password")
        reply = await here.post(
            "/auth/password", json={"old_password": PASSWORD, "new_password": NEW_PASSWORD}, headers=old
        )
        began = time.monotonic()
        assert reply.status_code == 200, reply.text
        await until(telling.done, within_s=WITHIN_S)
        await telling
        assert by_token.names[-1] == "error"
        assert by_token.body["error"]["code"] == "access-revoked"
        await shut_out([here, there], old, since=began)
        assert (await by_key).names[-1] == "finished"  # what was told to the key is the whole answer
    job_id = by_token.job_id or ""
    assert await until(lambda: code_of(here, job_id)) == "completed"
    new = bearer(reply.json()["access_token"])
    assert (await there.get("/jobs", headers=new)).status_code == 200
    problem(await log_in(there, user_id), 401, "wrong-credentials")
    assert (await log_in(there, user_id, NEW_PASSWORD)).status_code == 200
    assert (await here.post("/auth/logout-everywhere", headers=new)).status_code == 204
    await shut_out([here, there], new, since=time.monotonic())
    assert (await there.get("/jobs", headers=key)).status_code == 200


# --- API keys ---


async def test_a_key_is_used_wherever_a_token_is_and_is_shown_once(
    running: Running, other: Process, here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    user_id = name("alice")
    token = await register(here, user_id)
    made = await new_key(here, token)
    assert made["key"].startswith("ask_")
    assert made["scopes"] == ["jobs"]
    key = bearer(made["key"])
    reply = await there.post("/chat/", json={"prompt": "by a key"}, headers=key)
    assert reply.status_code == 200, reply.text
    async with openai.AsyncOpenAI(base_url=f"{other.http}/v1", api_key=made["key"], max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="openai/stand-in", messages=[{"role": "user", "content": "by the client"}]
        )
        assert answer.choices[0].message.content == "Answer to: by the client"
        streamed = await client.chat.completions.create(
            model="openai/stand-in", messages=[{"role": "user", "content": "once more"}], stream=True
        )
        text = "".join([part.choices[0].delta.content or "" async for part in streamed if part.choices])
        assert text == "Answer to: once more"
        assert [model.id async for model in client.models.list()]
    listed = (await there.get("/api-keys", headers=key)).json()
    (item,) = listed["items"]
    assert listed["next"] is None
    assert item == {field: made[field] for field in item} | {"last_used_at": item["last_used_at"]}
    assert "key" not in item

    async def was_used() -> Any:
        return (await here.get("/api-keys", headers=token)).json()["items"][0]["last_used_at"]

    assert datetime.fromisoformat(await until(was_used)) <= datetime.now(UTC) + timedelta(seconds=30)
    secret = made["key"].rpartition(made["id"].replace("-", ""))[2]
    assert secret not in str(await rows_of(running.deployment, "api_keys"))
    for method, path in (("POST", "/api-keys"), ("DELETE", f"/api-keys/{made['id']}"), ("POST", "/auth/password"),
                         ("POST", "/auth/logout-everywhere")):  # fmt: skip
        body = {"name": "x"} if path == "/api-keys" else {"old_password": PASSWORD, "new_password": NEW_PASSWORD}
        problem(await there.request(method, path, headers=key, json=body), 403, "login-required")


async def test_a_deleted_key_is_worth_nothing_anywhere_and_its_streams_end(
    other: Process, here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    token = await register(here, name("alice"))
    made = await new_key(here, token)
    key = bearer(made["key"])
    async with plain_client(base_url=other.http, timeout=60, headers=key) as client:
        stream = Sse()
        telling = asyncio.create_task(
            stream.listen(client, ask={"prompt": f"[tokens=2000][pace=0.02] {uuid.uuid4()}", "stream": True})
        )
        await until(lambda: stream.text)
        anothers = await register(here, name("bob"))
        problem(await here.delete(f"/api-keys/{made['id']}", headers=anothers), 404, "not-found")
        began = time.monotonic()
        assert (await here.delete(f"/api-keys/{made['id']}", headers=token)).status_code == 204
        assert (await here.get("/jobs", headers=key)).status_code == 401  # here at once
        await shut_out([here, there], key, since=began)
        await until(telling.done, within_s=began + WITHIN_S - time.monotonic())
        await telling
        assert stream.body["error"]["code"] == "access-revoked"
    problem(await here.delete(f"/api-keys/{made['id']}", headers=token), 404, "not-found")
    assert (await there.post(f"/jobs/{stream.job_id}/cancel", headers=token)).status_code in (200, 202)


async def test_a_keys_scopes_are_all_that_it_is_good_for(here: httpx.AsyncClient, there: httpx.AsyncClient) -> None:
    user_id = name("alice")
    token = await register(here, user_id)
    reads = bearer((await new_key(here, token, scopes=["read"]))["key"])
    job_id = (await here.post("/chat/async", json={"prompt": "mine"}, headers=token)).json()["job_id"]
    assert (await there.get(f"/jobs/{job_id}", headers=reads)).status_code == 200
    for method, path, body in (
        ("POST", "/chat/", {"prompt": "x"}), ("POST", f"/jobs/{job_id}/cancel", None), ("GET", "/webhook-secret", None),
        ("POST", "/v1/chat/completions", {"model": "x", "messages": []}),
        ("GET", f"/jobs/{job_id}/stream?cancel_on_disconnect=true", None),
    ):  # fmt: skip
        problem(await there.request(method, path, json=body, headers=reads), 403, "scope-missing")
    refused = await here.post("/api-keys", json={"name": "x", "scopes": ["admin"]}, headers=token)
    problem(refused, 403, "not-allowed")
    bodies: list[dict[str, Any]] = [
        {"scopes": []}, {"scopes": ["all"]}, {"expires_at": "2020-01-01T00:00:00Z"}, {"name": ""}, {"id": "x"},
        {"expires_at": "2099-01-01T00:00:00"}, {"user_id": "root"}, {"digest": ""},
    ]  # fmt: skip
    for bad in bodies:
        problem(await here.post("/api-keys", json={"name": "x", **bad}, headers=token), 422, "invalid-body")
    own = dict(here.headers)
    everything = await new_key(here, own)
    assert everything["scopes"] == ["jobs", "admin"]
    plain, admins, users = [
        bearer((await new_key(here, own, scopes=scopes))["key"]) for scopes in (["jobs"], ["jobs", "admin"], ["users"])
    ]
    assert (await there.get(f"/jobs/{job_id}", headers=plain)).status_code == 404
    assert (await there.get(f"/jobs/{job_id}", headers=admins)).status_code == 200
    problem(await there.get("/users", headers=admins), 403, "scope-missing")
    assert (await there.get(f"/users/{user_id}", headers=users)).status_code == 200
    problem(await there.post("/chat/", json={"prompt": "x"}, headers=users), 403, "scope-missing")
    items = (await here.get("/api-keys", params={"user_id": user_id})).json()["items"]
    assert [item["scopes"] for item in items] == [["read"]]
    problem(await here.get("/api-keys", params={"user_id": "root"}, headers=token), 403, "not-allowed")
    assert (await here.delete(f"/api-keys/{items[0]['id']}")).status_code == 204  # an admin's part
    for item in (await here.get("/api-keys")).json()["items"]:
        await here.delete(f"/api-keys/{item['id']}")


async def test_an_expired_key_is_none(here: httpx.AsyncClient) -> None:
    token = await register(here, name("alice"))
    at = datetime.now(UTC) + timedelta(seconds=1.5)
    key = bearer((await new_key(here, token, expires_at=at.isoformat()))["key"])
    assert (await here.get("/jobs", headers=key)).status_code == 200
    await shut_out([here], key, since=time.monotonic())
    assert datetime.now(UTC) >= at


# --- logins that fail ---


async def test_every_login_that_fails_is_written_down_and_tells_nothing(
    here: httpx.AsyncClient, there: httpx.AsyncClient
) -> None:
    known, unknown, disabled = name("alice"), name("nobody"), name("former")
    await register(here, known)
    await register(here, disabled)
    await here.patch(f"/users/{disabled}", json={"disabled": True})
    bodies = []
    for user_id, password in ((known, "wrong"), (unknown, "wrong"), (disabled, PASSWORD)):
        body = problem(await log_in(there, user_id, password), 401, "wrong-credentials")
        bodies.append(body | {"request_id": ""})
    assert bodies[0] == bodies[1] == bodies[2]
    for user_id, reason in ((known, "wrong-password"), (unknown, "unknown-user"), (disabled, "user-disabled")):
        (item,) = await failures(here, user_id)
        assert item == {"at": item["at"], "user_id": user_id, "address": "127.0.0.1", "reason": reason}
    page = (await here.get("/admin/login-failures", params={"limit": 1})).json()
    after = (await here.get("/admin/login-failures", params={"limit": 1, "cursor": page["next"]})).json()
    assert [item["user_id"] for item in page["items"] + after["items"]] == [disabled, unknown]
    assert "wrong" not in json.dumps(await failures(here, known)).replace("wrong-password", "")


async def test_who_guesses_on_is_slowed_down_and_that_is_written_down_once(here: httpx.AsyncClient) -> None:
    user_id = name("nobody")
    replies = await asyncio.gather(
        *(log_in(here, user_id, f"guess {n}") for n in range(14))
    )  # all before one is forgiven
    assert sorted(reply.status_code for reply in replies) == [401] * 10 + [429] * 4
    found = sorted(item["reason"] for item in await failures(here, user_id))
    assert found == ["slowed-down", *["unknown-user"] * 10]


async def test_an_unknown_user_takes_as_long_as_a_wrong_password(
    running: Running,
) -> None:
    replica = running.deployment.start("ingress", LOGIN_FAILURES_PER_MIN="1000", **{DEAR_HASHES: "1"})
    await running.deployment.ready(replica)
    known, unknown = name("alice"), name("nobody")
    took: dict[str, list[float]] = {known: [], unknown: []}
    async with client_of(replica) as client:
        await register(client, known)
        for _ in range(ATTEMPTS):
            for user_id, times in took.items():
                began = time.perf_counter()
                assert (await log_in(client, user_id, "wrong password")).status_code == 401
                times.append(time.perf_counter() - began)
    replica.kill()
    known_s, unknown_s = (statistics.median(times) for times in took.values())
    # A hash is 50 ms and more: without one the answer would come in a few.
    assert 0.6 < known_s / unknown_s < 1.7, took
