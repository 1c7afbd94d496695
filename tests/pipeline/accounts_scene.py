"""Somebody with an account: who they are, and how soon they are out."""

import time
import uuid
from typing import Any

import asyncpg
import httpx

from tests.deployment import PASSWORD, Deployment
from tests.waiting import until

WITHIN_S = 5.0


def name(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:6]}"


async def log_in(client: httpx.AsyncClient, user_id: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post("/auth/login", json={"user_id": user_id, "password": password})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def new_key(client: httpx.AsyncClient, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    reply = await client.post("/api-keys", json={"name": "ci", **body}, headers=headers)
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made


async def shut_out(clients: list[httpx.AsyncClient], headers: dict[str, str], *, since: float) -> None:
    """These headers are worth nothing at any replica, soon enough."""
    for client in clients:

        async def refused(client: httpx.AsyncClient = client) -> bool:
            return (await client.get("/jobs", headers=headers)).status_code == 401

        await until(refused, within_s=since + WITHIN_S - time.monotonic())


async def code_of(client: httpx.AsyncClient, job_id: str) -> str | None:
    """With which a job has ended; None while it has not."""
    view = (await client.get(f"/jobs/{job_id}")).json()
    return view["error"]["code"] if view["status"] == "error" else "completed" if "result" in view else None


async def rows_of(deployment: Deployment, table: str) -> list[Any]:
    connection = await asyncpg.connect(deployment.dsn)
    try:
        return await connection.fetch(f"SELECT *, encode(digest, 'escape') FROM {table}")  # type: ignore[no-any-return]
    finally:
        await connection.close()


async def failures(admin: httpx.AsyncClient, user_id: str) -> list[dict[str, Any]]:
    reply = await admin.get("/admin/login-failures", params={"user_id": user_id})
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    return items
