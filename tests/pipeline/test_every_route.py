"""Every route that the OpenAPI document has, those of later releases included: who gets in, and what is not there."""

import json
import uuid
from typing import Any

import httpx
import pytest

from tests.deployment import PASSWORD, client_of, register
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


async def test_another_users_id_is_as_unknown_on_every_route(running: Running) -> None:
    with_job = [(method, path) for method, path in routes(running) if "{job_id}" in path]
    async with client_of(running.ingress) as admin:
        mallory = await register(admin, f"mallory-{uuid.uuid4().hex[:6]}")
        job_id = (await admin.post("/chat/async", json={"prompt": "mine"})).json()["job_id"]
        for method, path in with_job:
            replies = [
                await admin.request(method, filled(path, value), headers=mallory, json={})
                for value in (job_id, str(uuid.uuid4()))
            ]
            bodies = [{**problem(reply, 404, "not-found"), "request_id": ""} for reply in replies]
            assert bodies[0] == bodies[1], path


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
