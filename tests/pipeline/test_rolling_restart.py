"""Every process is stopped and started anew under load: clients see nothing but `Retry-After`, nothing is repeated."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import httpx
import pytest

from tests.deployment import Deployment, Process, client_of
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration
CALLERS = 12


class Balancer:
    """Sends each call to a replica in turn; to the next one where nobody listens, as balancers do. `odd`: what a
    client should never have seen.
    """

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack, self._clients = stack, dict[str, httpx.AsyncClient]()
        self._turn = count()
        self.told_to_retry = 0
        self.odd: list[str] = []

    async def add(self, ingress: Process) -> None:
        self._clients[ingress.http] = await self._stack.enter_async_context(client_of(ingress))

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Until it is answered."""
        while True:
            clients = list(self._clients.values())
            client = clients[next(self._turn) % len(clients)]
            try:
                reply = await client.post(path, json=body)
            except httpx.ConnectError:
                self._clients = {url: found for url, found in self._clients.items() if found is not client}
                continue
            except httpx.HTTPError as error:  # it is in doubt whether its job was accepted
                self.odd.append(repr(error))
                return {}
            if reply.status_code == 503 and "retry-after" in reply.headers:
                self.told_to_retry += 1
                continue
            if reply.status_code not in (200, 202):
                self.odd.append(f"{reply.status_code} {reply.text[:300]}")
            answer: dict[str, Any] = reply.json()
            return answer


@pytest.mark.long
async def test_a_rolling_restart_of_every_process_shows_clients_nothing_but_retry_after(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    # The new one is there before the old one is told to go, as in every rolling restart.
    processes = [deployment.start("ingress"), *(deployment.worker(role) for role in ("gate", "completion", "sink"))]
    await deployment.ready()
    numbers, accepted, answered, rolled = count(), list[str](), list[str](), asyncio.Event()
    async with AsyncExitStack() as stack:
        balancer = Balancer(stack)
        await balancer.add(processes[0])

        async def call() -> None:
            while not rolled.is_set():
                number = next(numbers)
                prompt = f"question {number} [delay=0.2]"  # fits every drain
                if number % 3:
                    accepted.append((await balancer.post("/chat/async", {"prompt": prompt})).get("job_id", prompt))
                else:
                    answered.append((await balancer.post("/chat/", {"prompt": prompt})).get("result", {}).get("text"))

        calling = [asyncio.create_task(call()) for _ in range(CALLERS)]
        for old in processes:
            words = old.name.rpartition("-")[0].replace("worker---roles-", "")
            new = deployment.start("ingress") if words == "ingress" else deployment.worker(words)
            await deployment.ready(new)
            if words == "ingress":
                await balancer.add(new)
            before = len(accepted)
            assert await old.stop() in (0, -15)
            await until(lambda: len(accepted) > before + 20, within_s=60)  # noqa: B023 awaited at once
        rolled.set()
        await asyncio.gather(*calling)

    assert balancer.odd == []
    assert all(text.startswith("Answer to") for text in answered)

    async def all_ended() -> bool:
        return len(await deployment.finished_rows()) >= len(accepted) + len(answered)

    await until(all_ended, within_s=60)
    rows = await deployment.finished_rows()
    assert {str(job_id) for job_id in rows} >= set(accepted)
    assert Counter(row["status"] for row in rows.values()) == {"completed": len(accepted) + len(answered)}
    assert Counter(api.calls.values()).keys() == {1}
