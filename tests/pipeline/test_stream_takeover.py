"""Workers that die or freeze while they tell an answer, and a replica that stops: no text is lost, doubled or mixed."""

import asyncio
import signal
import time
from typing import Any

import httpx
import pytest

from tests.deployment import Deployment, Process, client_of
from tests.pipeline.test_streams import asking, ended, words
from tests.sse import Sse
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


async def listened(client: httpx.AsyncClient, heard: Sse, ask: dict[str, Any]) -> "asyncio.Task[Sse]":
    """A listener at work, once it has heard some of the first try."""
    listening = asyncio.create_task(heard.listen(client, ask=ask))
    await until(lambda: len(heard.text) > 50)
    return listening


async def whose(workers: list[Process]) -> Process:
    """The worker that has something in hand."""
    (found,) = [worker for worker in workers if await worker.metric("assistant_stage_in_flight")]
    return found


async def test_a_worker_killed_in_mid_stream_is_a_restart_and_the_other_ones_text(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    victim = deployment.worker("completion", WORKER_ID="heir")
    await deployment.ready()
    async with client_of(ingress) as client:
        heard = Sse()
        listening = await listened(client, heard, asking(60, pace=0.05))
        victim.kill()
        deployment.worker("completion", WORKER_ID="heir")  # under its name: nobody waits for the end of a session
        await listening
        assert heard.text == words(60, call=2)
        assert heard.names.count("restart") == 1
        late = await Sse().listen(client, f"/jobs/{heard.job_id}/stream")
        assert late.text == heard.text
        assert "restart" not in late.names


async def test_a_worker_that_thaws_in_mid_stream_mixes_nothing_in(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    workers = [deployment.worker("completion") for _ in range(2)]
    await deployment.ready()
    async with client_of(ingress) as client:
        heard = Sse()
        listening = await listened(client, heard, asking(60, pace=0.06))
        frozen = await whose(workers)
        frozen.popen.send_signal(signal.SIGSTOP)
        await until(lambda: heard.text.startswith("2w0 2w1 "))  # the other one has taken over
        frozen.popen.send_signal(signal.SIGCONT)  # and goes on with what it has in hand
        await listening
        stored = (await ended(client, heard.job_id or ""))["result"]["result"]["text"]
        assert heard.text == heard.body["result"]["result"]["text"] == stored
        assert stored in (words(60, call=1), words(60, call=2))
        late = await Sse().listen(client, f"/jobs/{heard.job_id}/stream")
        assert late.text == stored


async def test_a_replica_that_stops_sends_its_listeners_to_another(deployment: Deployment, api: OpenAIStandIn) -> None:
    ingresses = [deployment.start("ingress") for _ in range(2)]
    deployment.worker("gate,completion,sink")
    await deployment.ready()
    async with client_of(ingresses[0]) as first, client_of(ingresses[1]) as second:
        heard = Sse()
        listening = await listened(first, heard, asking(100, pace=0.05))
        began = time.monotonic()
        stopping = asyncio.create_task(ingresses[0].stop())
        await listening
        assert time.monotonic() - began < 2  # it does not wait for the end of the answer
        assert heard.body is None
        await heard.to_the_end(second)
        await stopping
    assert heard.text == words(100)
    assert "restart" not in heard.names
