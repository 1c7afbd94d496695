"""Waiting callers who leave: their jobs are cancelled, unless they may come back."""

import asyncio
import json
import uuid
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.deployment import Process, client_of
from tests.pipeline.conftest import Running
from tests.pipeline.test_cancel import error_of
from tests.waiting import until

pytestmark = pytest.mark.integration


async def ask_and_leave(
    ingress: Process, running: Running, authorization: str, prompt: str, *headers: str, stopping: bool = False
) -> None:
    """A waiting call on a socket of its own, which is closed once the provider is at work.

    `stopping`: and once the ingress has been told to stop.
    """
    body = json.dumps({"prompt": prompt, "timeout": 60}).encode()
    at = urlsplit(ingress.http)
    _, writer = await asyncio.open_connection(at.hostname, at.port)
    lines = [
        "POST /chat/ HTTP/1.1", f"host: {at.netloc}", f"authorization: {authorization}",
        "content-type: application/json", f"content-length: {len(body)}", *headers,
    ]  # fmt: skip
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    await writer.drain()
    writer.write(body)
    await until(lambda: running.calls().get(prompt))
    if stopping:
        ingress.popen.terminate()
        await until(lambda: is_refused(ingress))
    writer.close()
    await writer.wait_closed()


async def is_refused(ingress: Process) -> bool:
    """It takes no more connections."""
    try:
        async with httpx.AsyncClient() as client:
            await client.get(f"{ingress.http}/livez")
    except httpx.ConnectError:
        return True
    return False


async def job_of(client: httpx.AsyncClient, running: Running, prompt: str) -> str:
    """Found by its prompt in the topic: whoever leaves is told no id."""

    async def found() -> Any:
        records = await running.deployment.records("job-requested")
        return [dict(record.headers)["ce_id"].decode() for record in records if prompt.encode() in record.value]

    (job_id,) = await until(found)
    return str(job_id)


async def test_a_waiting_caller_who_leaves_cancels_the_job(running: Running) -> None:
    async with client_of(running.ingress) as client:
        prompt = f"[mode=hang] {uuid.uuid4()}"
        await ask_and_leave(running.ingress, running, client.headers["authorization"], prompt)
        assert (await error_of(client, await job_of(client, running, prompt)))["code"] == "cancelled"
        assert running.calls()[prompt] == 1


async def test_a_caller_with_an_idempotency_key_may_leave_and_come_back(running: Running) -> None:
    async with client_of(running.ingress) as client:
        prompt = f"[delay=1] {uuid.uuid4()}"
        authorization = client.headers["authorization"]
        await ask_and_leave(running.ingress, running, authorization, prompt, f"idempotency-key: {uuid.uuid4()}")
        job_id = await job_of(client, running, prompt)

        async def completed() -> bool:
            return bool((await client.get(f"/jobs/{job_id}")).json()["status"] == "completed")

        await until(completed)


async def test_a_replica_that_stops_cancels_nothing(running: Running) -> None:
    ingress = running.deployment.start("ingress")
    await running.deployment.ready(ingress)
    async with client_of(running.ingress) as client:
        prompt = f"[delay=3] {uuid.uuid4()}"
        await ask_and_leave(ingress, running, client.headers["authorization"], prompt, stopping=True)
        job_id = await job_of(client, running, prompt)

        async def completed() -> bool:
            return bool((await client.get(f"/jobs/{job_id}")).json()["status"] == "completed")

        await until(completed)
        await asyncio.to_thread(ingress.popen.wait, 30)
