"""Payloads on a real Postgres: whose they are, how many there may be, and when they go."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from schemas.envelope import Attributes, Envelope
from schemas.events import JobAdmitted
from schemas.ids import uuid7
from sinks.payloads import KEPT, PART_BYTES, FileFacts, Payload, PayloadQuotaError, PayloadStore
from sinks.pool import Pool
from sinks.postgres import OutcomeSink, PendingSink
from tests.factories import job, job_admitted, job_finished

pytestmark = pytest.mark.integration
PLENTY = 1_000_000_000


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=4)
    yield pool
    await pool.close()


@pytest.fixture
def store(pool: Pool) -> PayloadStore:
    return PayloadStore(pool)


def payload(content: bytes = b"\x00bytes", **more: Any) -> Payload:
    fields: dict[str, Any] = {
        "payload_id": uuid7(), "user_id": "alice", "job_id": None, "media_type": "image/png", "sha256": "0" * 64,
        "content": content,
    }  # fmt: skip
    return Payload(**fields | more)


async def ids(pool: Pool) -> set[UUID]:
    async with pool.connection() as connection:
        return {row["payload_id"] for row in await connection.fetch("SELECT payload_id FROM payloads")}


async def run(pool: Pool, statement: str, *values: Any) -> None:
    async with pool.connection() as connection:
        await connection.execute(statement, *values)


async def test_what_is_kept_is_its_users_alone(store: PayloadStore) -> None:
    own = payload(bytes(range(256)) * 40_000)  # 10 MB
    until = await store.store(own, user_bytes=PLENTY)
    assert timedelta(0) <= datetime.now(UTC) + KEPT - until < timedelta(minutes=1)
    assert await store.store(own, user_bytes=PLENTY) == until  # once more is the same
    assert await store.load(own.payload_id, user_id="alice") == ("image/png", own.content)
    assert await store.size(own.payload_id, user_id="alice") == len(own.content)
    for user_id, payload_id in (("bob", own.payload_id), ("alice", uuid4())):
        assert await store.load(payload_id, user_id=user_id) is None
        assert await store.size(payload_id, user_id=user_id) is None
        assert not await store.delete(payload_id, user_id=user_id)
    with pytest.raises(PayloadQuotaError):  # as if there were no room: it is told of nobody's payload
        await store.store(payload(payload_id=own.payload_id, user_id="bob"), user_bytes=PLENTY)
    assert await store.delete(own.payload_id, user_id="alice")
    assert await store.load(own.payload_id, user_id="alice") is None


async def test_a_user_has_no_more_than_one_may_have(store: PayloadStore) -> None:
    first = payload(b"x" * 60)
    await store.store(first, user_bytes=100)
    with pytest.raises(PayloadQuotaError, match="100 bytes"):
        await store.store(payload(b"x" * 41), user_bytes=100)
    await store.store(payload(b"x" * 40), user_bytes=100)
    await store.store(payload(b"x" * 41, user_id="bob"), user_bytes=100)
    await store.delete(first.payload_id, user_id="alice")
    await store.store(payload(b"x" * 60), user_bytes=100)


async def test_they_go_with_their_jobs_but_not_while_a_job_may_come_back(store: PayloadStore, pool: Pool) -> None:
    kept: dict[str, Payload] = {}
    outcomes = []
    for name in ("completed", "just now", "refused by the provider", "dead", "pending", "without a row"):
        of = job()
        kept[name] = payload(job_id=of.job_id)
        await store.store(kept[name], user_bytes=PLENTY)
        if name == "pending":
            admitted: Envelope[JobAdmitted] = Envelope(Attributes("e", "/s", "t"), job_admitted(job=of))
            await PendingSink(pool).write([admitted])
        elif name != "without a row":
            code = None if name in ("completed", "just now") else "provider-http-400"
            at = datetime.now(UTC) - timedelta(minutes=1 if name == "just now" else 61)
            finished = job_finished(job=of, code=code).model_copy(update={"finished_at": at})
            outcomes.append(Envelope(Attributes("e", "/s", "t"), finished))
        if name == "dead":
            await run(
                pool,
                """INSERT INTO dead_letters
                       (partition, "offset", at, topic, stage, code, reason, attempts, job_id, headers)
                   VALUES (0, 1, now(), 't', 's', 'c', 'r', 1, $1, '[]')""",
                of.job_id,
            )
    await OutcomeSink(pool).write(outcomes)
    kept["uploaded"] = payload()
    await store.store(kept["uploaded"], user_bytes=PLENTY)
    assert await store.delete_old() == 2
    gone = {name for name, one in kept.items() if one.payload_id not in await ids(pool)}
    assert gone == {"completed", "refused by the provider"}
    await run(pool, "UPDATE payloads SET expires_at = now() WHERE payload_id = $1", kept["dead"].payload_id)
    assert await store.load(kept["dead"].payload_id, user_id="alice") is None
    assert await store.delete_old() == 1
    assert await store.delete_old() == 0


async def test_so_many_are_deleted_at_a_time(store: PayloadStore, pool: Pool) -> None:
    for _ in range(5):
        await store.store(payload(), user_bytes=PLENTY)
    await run(pool, "UPDATE payloads SET expires_at = now() - interval '1 s'")
    assert [await store.delete_old(limit=2) for _ in range(4)] == [2, 2, 1, 0]


# --- files ---


async def put(store: PayloadStore, *parts: bytes, user_id: str = "alice", user_bytes: int = PLENTY) -> UUID:
    """A file of these parts, not complete."""
    payload_id = uuid7()
    await store.begin_file(payload_id, user_id=user_id, media_type="text/plain")
    for number, part in enumerate(parts):
        await store.add_part(payload_id, number, part, user_id=user_id, user_bytes=user_bytes)
    return payload_id


async def read(store: PayloadStore, payload_id: UUID, user_id: str = "alice") -> list[bytes]:
    return [part async for part in store.parts(payload_id, user_id=user_id)]


async def test_a_file_is_nobodys_until_it_is_complete_and_then_its_users(store: PayloadStore) -> None:
    parts = (b"\x00" * PART_BYTES, bytes(range(256)) * 4096, b"end")
    payload_id = await put(store, *parts)
    assert await store.file(payload_id, user_id="alice") is None
    assert await read(store, payload_id) == []
    assert await store.complete_file(payload_id, user_id="bob", sha256="a" * 64) is None
    until = await store.complete_file(payload_id, user_id="alice", sha256="a" * 64)
    assert until is not None
    assert timedelta(0) <= datetime.now(UTC) + KEPT - until < timedelta(minutes=1)
    assert await store.file(payload_id, user_id="alice") == FileFacts(2 * PART_BYTES + 3, "a" * 64, "text/plain")
    assert await read(store, payload_id) == list(parts)
    assert await store.file(payload_id, user_id="bob") is None
    assert await read(store, payload_id, "bob") == []
    assert await store.size(payload_id, user_id="alice") is None  # it is no image
    assert await store.load(payload_id, user_id="alice") is None
    with pytest.raises(PayloadQuotaError):  # what is complete stays as it is
        await store.add_part(payload_id, 3, b"more", user_id="alice", user_bytes=PLENTY)
    assert await store.delete(payload_id, user_id="alice")
    assert await read(store, payload_id) == []


async def test_parts_are_counted_as_they_come(store: PayloadStore) -> None:
    await store.store(payload(b"x" * 50), user_bytes=100)
    payload_id = await put(store, b"x" * 40, user_bytes=100)
    with pytest.raises(PayloadQuotaError, match="100 bytes"):
        await store.add_part(payload_id, 1, b"x" * 11, user_id="alice", user_bytes=100)
    await store.add_part(payload_id, 1, b"x" * 10, user_id="alice", user_bytes=100)
    with pytest.raises(PayloadQuotaError):
        await store.store(payload(b"x"), user_bytes=100)
    await put(store, b"x" * 100, user_id="bob", user_bytes=100)


async def test_what_never_becomes_complete_goes_soon_with_all_its_parts(store: PayloadStore, pool: Pool) -> None:
    left = await put(store, b"x" * 1000, b"y" * 1000)
    complete = await put(store, b"z")
    await store.complete_file(complete, user_id="alice", sha256="a" * 64)
    assert await store.delete_old() == 0
    await run(pool, "UPDATE payloads SET expires_at = expires_at - interval '11 minutes'")
    assert await store.delete_old() == 1
    assert await ids(pool) == {complete}
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM payload_parts WHERE payload_id = $1", left) == 0


async def test_a_file_that_a_job_claims_goes_with_it(store: PayloadStore, pool: Pool) -> None:
    payload_id, of = await put(store, b"z"), job()
    assert not await store.claim_file(payload_id, user_id="alice", job_id=of.job_id)
    await store.complete_file(payload_id, user_id="alice", sha256="a" * 64, kept=timedelta(hours=1))
    assert not await store.claim_file(payload_id, user_id="bob", job_id=of.job_id)
    assert await store.claim_file(payload_id, user_id="alice", job_id=of.job_id)
    finished = job_finished(job=of).model_copy(update={"finished_at": datetime.now(UTC) - timedelta(minutes=61)})
    await OutcomeSink(pool).write([Envelope(Attributes("e", "/s", "t"), finished)])
    assert await store.delete_old() == 1


async def test_large_ones_are_deleted_in_several_steps(store: PayloadStore, pool: Pool) -> None:
    for _ in range(3):
        await put(store, b"z")
    await run(pool, "UPDATE payloads SET size = 200000000, expires_at = now() - interval '1 s'")
    assert [await store.delete_old() for _ in range(3)] == [2, 1, 0]


async def test_one_is_read_in_pieces_by_its_user_alone(store: PayloadStore) -> None:
    own = payload(bytes(range(100)), media_type="audio/wav")
    await store.store(own, user_bytes=PLENTY)
    facts = await store.facts(own.payload_id, user_id="alice")
    assert facts is not None
    assert (facts.media_type, facts.size, facts.sha256) == ("audio/wav", 100, own.sha256)
    pieces = [await store.piece(own.payload_id, user_id="alice", begin=begin, length=64) for begin in (0, 64)]
    assert b"".join(piece or b"" for piece in pieces) == own.content
    assert await store.facts(own.payload_id, user_id="bob") is None
    assert await store.piece(own.payload_id, user_id="bob", begin=0, length=64) is None


async def test_what_a_job_has_said_outlives_its_end(store: PayloadStore, pool: Pool) -> None:
    ended = job()
    await PendingSink(pool).write([Envelope(Attributes("e", "/s", "t"), job_admitted(job=ended))])
    await OutcomeSink(pool).write([Envelope(Attributes("e", "/s", "t"), job_finished(job=ended))])
    await run(pool, "UPDATE jobs SET finished_at = finished_at - interval '2 hours'")
    said, shown = (payload(job_id=ended.job_id, media_type=kind) for kind in ("audio/wav", "image/png"))
    for one in (said, shown):
        await store.store(one, user_bytes=PLENTY)
    await store.delete_old()
    assert await ids(pool) == {said.payload_id}
