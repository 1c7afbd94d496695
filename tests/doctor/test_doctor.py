"""`assistant doctor` on a real deployment: all is well, and then it is not."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from recover.reader import ends_of
from sinks.migrate import head_revision
from tests.conftest import A_PREFIX, SECRET, KafkaForTests
from tests.deployment import PASSWORD, Deployment
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.waiting import until
from transport import admin

pytestmark = pytest.mark.integration
KEY = "sk-never-shown"


@pytest.fixture
async def whole(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Deployment]:  # fmt: skip
    """With as many partitions as topics.yaml says."""
    async with OpenAIStandIn() as api:
        environment = {"ALLOWED_PROVIDERS": "openai", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": api.base_url}
        deployment = Deployment(kafka, database, topic_prefix, tmp_path, environment)
        await deployment.set_up(partitions=None)
        yield deployment
        deployment.close()


async def examined(deployment: Deployment, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and the findings by part; no secret is in any of it."""
    done = await asyncio.to_thread(deployment.run, "doctor", "--json", **environment)
    for secret in (KEY, PASSWORD, SECRET, deployment.dsn):
        assert secret not in done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return done.returncode, {finding["part"]: finding for finding in told["findings"]}


async def seen(deployment: Deployment) -> tuple[dict[Any, int], list[Any]]:
    """How far the topics of jobs and users are, and which groups there are but those of other tests."""
    ends: dict[Any, int] = {}
    for name in ("job-requested", "job-admitted", "job-finished", "user-updated"):
        ends |= await ends_of(deployment.kafka.access, deployment.prefix + name)
    async with admin.connected(deployment.kafka.access) as client:
        groups = [group[0] for group in await client.list_consumer_groups()]
    return ends, sorted(name for name in groups if name.startswith(deployment.prefix) or not A_PREFIX.match(name))


async def test_a_sound_deployment_is_found_so_and_nothing_is_changed(whole: Deployment) -> None:
    ingress, _ = whole.start("ingress"), whole.worker("gate,completion,sink")
    await whole.ready()
    before = await seen(whole)

    async def sound() -> dict[str, dict[str, str]] | None:
        code, parts = await examined(whole, INGRESS_PORT=ingress.http.rpartition(":")[2])
        return parts if code == 0 and parts["workers"]["state"] == "ok" else None

    parts = await until(sound)
    states = {part: finding["state"] for part, finding in parts.items()}
    assert states == {
        "python": "ok", "packages": states["packages"], "disk": states["disk"], "processes": "absent", "kafka": "ok",
        "topics": "ok", "replication": "warning", "workers": "ok", "clocks": "ok", "postgres": "ok", "schema": "ok",
        "provider openai": "ok", "ingress": "ok", "vectors": "absent",
    }  # fmt: skip
    assert "1 broker" in parts["kafka"]["found"]
    assert "replication factor 3" in parts["replication"]["advice"]
    assert parts["schema"]["found"] == f"revision {head_revision()}"
    assert await seen(whole) == before
    done = await asyncio.to_thread(whole.run, "doctor")
    assert done.returncode == 0
    assert "OPENAI_API_KEY" in done.stdout
    assert "(set)" in done.stdout
    assert KEY not in done.stdout + done.stderr


async def test_what_is_wrong_is_named_with_what_to_do(whole: Deployment) -> None:
    connection = await asyncpg.connect(whole.dsn)
    await connection.execute("UPDATE alembic_version SET version_num = '0001'")
    await connection.close()
    missing = whole.prefix + "job-progressed"
    await admin.delete(whole.kafka.access, [missing])

    async def gone() -> bool:  # a broker hears of it a moment after the controller, and a worker that is quicker starts
        async with admin.connected(whole.kafka.access) as client:
            return missing not in await client.list_topics()

    await until(gone)
    whole.worker("gate")
    await until(
        lambda: "the topics are not what this version needs" in whole.processes[0].log.read_text()
    )  # it says the same

    code, parts = await examined(whole)
    assert code == 1
    assert parts["schema"]["state"] == "wrong"
    assert parts["schema"]["advice"] == "run: assistant setup"
    assert parts["topics"]["state"] == "wrong"
    assert "job-progressed: is missing" in parts["topics"]["found"]
    assert parts["workers"]["state"] == "absent"
    assert parts["ingress"]["state"] == "absent"


async def test_parts_that_do_not_answer_are_named_and_not_waited_for_long(whole: Deployment) -> None:
    code, parts = await examined(
        whole, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", DATABASE_URL="postgresql://u:hidden@127.0.0.1:1/d",
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
    )  # fmt: skip
    assert code == 1
    wrong = {part for part, finding in parts.items() if finding["state"] == "wrong"}
    assert wrong == {"kafka", "postgres", "provider openai"}
    assert parts["postgres"]["found"].startswith("postgresql://127.0.0.1:1/d does not answer")
    assert "hidden" not in json.dumps(parts)
