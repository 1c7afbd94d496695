"""`GET /jobs/{job_id}/audio`: who hears it, by a token or by a signed address; and files in pieces."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from ingress import speech
from ingress.app import create_app
from schemas.audio_links import LINK_S, AudioLinks
from settings import Settings
from sinks.payloads import FileFacts
from sinks.postgres import JobRow
from tests.conftest import SECRET
from tests.factories import NOW, user_updated
from transport.table import CompactedTable

JOB, PENDING, CHAT, PAYLOAD = uuid4(), uuid4(), uuid4(), uuid4()
WAV = b"RIFF" + bytes(range(200))


def row(job_id: UUID, **fields: Any) -> JobRow:
    result = {"audio": {"payload_id": str(PAYLOAD)}}
    values: dict[str, Any] = {
        "job_id": job_id, "run": 1, "user_id": "alice", "kind": "speech", "status": "completed", "result": result,
        "error": None, "attempts": None, "timings": None, "metadata": None, "accepted_at": NOW, "expires_at": NOW,
        "finished_at": NOW,
    }  # fmt: skip
    return JobRow(**values | fields)


ROWS = {
    JOB: row(JOB), CHAT: row(CHAT, kind="chat"),
    PENDING: row(PENDING, status="pending", result=None, finished_at=None),
}  # fmt: skip


class FakeJobs:
    async def get(self, job_id: UUID, *, of: str | None = None) -> JobRow | None:
        found = ROWS.get(job_id)
        return found if found is not None and of in (None, found.user_id) else None


class FakePayloads:
    """Has one file of alice's, in pieces as they are asked for. `asked`: their lengths."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.is_there = True

    async def facts(self, payload_id: UUID, *, user_id: str) -> FileFacts | None:
        has = self.is_there and (payload_id, user_id) == (PAYLOAD, "alice")
        return FileFacts(len(WAV), "0" * 64, "audio/wav") if has else None

    async def piece(self, payload_id: UUID, *, user_id: str, begin: int, length: int) -> bytes | None:
        assert (payload_id, user_id) == (PAYLOAD, "alice")
        self.asked.append(length)
        return WAV[begin : begin + length]


class FakeDue:
    async def of_job(self, job_id: UUID) -> None:
        return None


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        Settings(
            _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
            jwt_secret_key=SECRET,
        )
    )  # fmt: skip
    made = app.state.services
    monkeypatch.setattr(CompactedTable, "is_running", True)
    monkeypatch.setattr(speech, "PIECE_BYTES", 64)
    made.jobs, made.payloads, made.due = FakeJobs(), FakePayloads(), FakeDue()
    made.user_table.values = {
        name: user_updated(user_id=name, role=role)
        for name, role in (("root", "admin"), ("alice", "user"), ("mallory", "user"))
    }
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        yield client
    await made.database.close()


def services(client: httpx.AsyncClient) -> Any:
    return client._transport.app.state.services  # type: ignore[attr-defined]  # of the ASGI transport


def bearer(client: httpx.AsyncClient, user_id: str) -> dict[str, str]:
    return {"authorization": f"Bearer {services(client).tokens.issue(user_id, role='user', epoch=0)}"}


@pytest.mark.parametrize(("user_id", "status"), [("alice", 200), ("root", 200), ("mallory", 404)])
async def test_its_user_and_admins_hear_it(client: httpx.AsyncClient, user_id: str, status: int) -> None:
    reply = await client.get(f"/jobs/{JOB}/audio", headers=bearer(client, user_id))
    assert reply.status_code == status
    if status == 200:
        assert reply.content == WAV
        assert reply.headers["content-length"] == str(len(WAV))
        assert reply.headers["content-disposition"] == f'attachment; filename="speech-{JOB}.wav"'
        assert services(client).payloads.asked == [64] * 4


async def test_a_signed_address_of_the_job_works_for_whoever_has_it(client: httpx.AsyncClient) -> None:
    url = (await client.get(f"/jobs/{JOB}", headers=bearer(client, "alice"))).json()["audio_url"]
    assert (await client.get(url)).content == WAV
    for wrong in (
        url.replace(str(JOB), str(PENDING)),
        url.replace("expires=", "expires=9"),
        url[:-5],
        f"/jobs/{JOB}/audio",
    ):
        assert (await client.get(wrong)).status_code == 401
    other = AudioLinks(["y" * 40]).path(JOB, now_s=time.time())
    assert (await client.get(other)).status_code == 401
    assert (await client.get(other, headers=bearer(client, "alice"))).status_code == 200  # a token is one all the same
    assert "audio_url" not in (await client.get(f"/jobs/{CHAT}", headers=bearer(client, "alice"))).json()


async def test_one_that_has_expired_says_so_and_one_of_a_disabled_user_is_worth_nothing(
    client: httpx.AsyncClient,
) -> None:
    links = services(client).audio_links
    reply = await client.get(links.path(JOB, now_s=time.time() - LINK_S - 1))
    assert (reply.status_code, reply.json()["code"]) == (403, "link-expired")
    services(client).user_table.values["alice"] = user_updated(user_id="alice", disabled=True)
    assert (await client.get(links.path(JOB, now_s=time.time()))).status_code == 404
    assert (await client.get(links.path(uuid4(), now_s=time.time()))).status_code == 404


@pytest.mark.parametrize(
    ("job_id", "status", "code"), [(PENDING, 409, "not-finished"), (CHAT, 409, "no-audio"), (JOB, 410, "audio-gone")]
)
async def test_where_there_is_no_audio_it_says_why(
    client: httpx.AsyncClient, job_id: UUID, status: int, code: str
) -> None:
    services(client).payloads.is_there = False
    reply = await client.get(f"/jobs/{job_id}/audio", headers=bearer(client, "alice"))
    assert (reply.status_code, reply.json()["code"]) == (status, code)
