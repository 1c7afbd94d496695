"""Files on their way into the store: what forms are taken, and that nothing of a file stays in memory."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import psutil
import pytest
from fastapi import Request

from ingress import files
from ingress.files import MIB, Files, source_of
from ingress.http.peeking import first_field, with_at_most
from ingress.http.problems import Problem
from processors.errors import RetryableError
from sinks.payloads import PART_BYTES, PayloadQuotaError
from tests.factories import user_updated

USER = user_updated()
HEAD = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\ncontent-type: text/plain\r\n\r\n'
TAIL = b"\r\n--b--\r\n"


class FakeStore:
    """Keeps hashes and sizes of parts, not the parts. `error`: raised by the part of this number."""

    def __init__(self, *, error: Exception | None = None, at: int = 0, pause: asyncio.Event | None = None) -> None:
        self._error, self._at, self._pause = error, at, pause
        self.sizes: dict[UUID, list[int]] = {}
        self.types: dict[UUID, str] = {}
        self.complete: dict[UUID, str] = {}
        self.deleted: list[UUID] = []
        self.kept: timedelta | None = None

    async def begin_file(self, payload_id: UUID, *, user_id: str, media_type: str) -> None:
        self.sizes[payload_id], self.types[payload_id] = [], media_type

    async def add_part(self, payload_id: UUID, part: int, content: bytes, *, user_id: str, user_bytes: int) -> None:
        assert part == len(self.sizes[payload_id])
        if self._pause is not None:
            await self._pause.wait()
        if self._error is not None and part == self._at:
            raise self._error
        self.sizes[payload_id].append(len(content))

    async def complete_file(self, payload_id: UUID, *, user_id: str, sha256: str, kept: timedelta) -> datetime:
        self.complete[payload_id], self.kept = sha256, kept
        return datetime.now(UTC)

    async def delete(self, payload_id: UUID, *, user_id: str) -> bool:
        self.deleted.append(payload_id)
        return True


def request_of(chunks: Any, *, content_type: str = "multipart/form-data; boundary=b", **headers: str) -> Request:
    async def receive() -> dict[str, Any]:
        try:
            chunk = next(source)
        except StopIteration:
            return {"type": "http.request", "body": b"", "more_body": False}
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    source = iter(chunks)
    told = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in told.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def desk(store: FakeStore, *, max_upload_mb: int = 1) -> Files:
    return Files(store, user_bytes=10**9, max_upload_mb=max_upload_mb)  # type: ignore[arg-type]  # as far as it is used


async def refused(store: FakeStore, request: Request, *, status: int, code: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await desk(store).receive(USER, request, is_for_job=True)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert not store.complete
    assert set(store.sizes) <= set(store.deleted)  # nothing of it is left
    return caught.value


@pytest.mark.parametrize("step", [1, 7, 65_536])
async def test_a_file_is_stored_in_parts_whatever_pieces_it_comes_in(step: int) -> None:
    content = bytes(range(256)) * (20 if step == 1 else 4_000 if step == 7 else 10_000)  # with line ends of all sorts
    body = HEAD + content + TAIL
    store = FakeStore()
    made = await desk(store, max_upload_mb=3).receive(
        USER, request_of(body[n : n + step] for n in range(0, len(body), step)), is_for_job=True
    )
    assert (made.size, made.sha256, made.name) == (len(content), sha256(content).hexdigest(), "a.txt")
    assert store.complete == {made.payload_id: made.sha256}
    assert store.types == {made.payload_id: "text/plain"}
    sizes = store.sizes[made.payload_id]
    assert sum(sizes) == len(content)
    assert all(size == PART_BYTES for size in sizes[:-1])
    assert not made.is_claimed
    assert store.kept == timedelta(hours=1)
    assert store.deleted == []


async def test_a_file_that_is_no_jobs_is_its_users_at_once() -> None:
    store = FakeStore()
    made = await desk(store).receive(USER, request_of([HEAD, b"x", TAIL]), is_for_job=False)
    assert made.is_claimed
    assert store.kept == timedelta(days=15)
    assert made.reference.model_dump(mode="json") == {
        "payload_id": str(made.payload_id), "size": 1, "sha256": sha256(b"x").hexdigest(),
    }  # fmt: skip


async def test_what_is_too_large_is_refused_before_it_is_read_or_as_soon_as_it_is() -> None:
    def never() -> Any:
        raise AssertionError("it was read")
        yield b""

    declared = request_of(never(), content_length=str(2 * MIB))
    told = await refused(FakeStore(), declared, status=413, code="file-too-large")
    assert "1 MiB (MAX_UPLOAD_MB)" in told.detail
    read = 0

    def endless() -> Any:
        nonlocal read
        yield HEAD
        while True:
            read += 65_536
            yield b"x" * 65_536

    store = FakeStore()
    await refused(store, request_of(endless()), status=413, code="file-too-large")
    assert read <= MIB + 2 * 65_536
    assert store.deleted


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ([HEAD, b"x"], "no end"), ([b"--b--\r\n"], "no file"), ([], "no end"), ([b"nonsense" * 10], "cannot be read"),
        ([HEAD.replace(b"file", b"picture"), b"x", TAIL], "picture"),
        ([HEAD, b"x\r\n", HEAD, b"y", TAIL], "more than one part"),
        ([HEAD, b"x" * MIB, b"\r\n", HEAD, b"y", TAIL], "more than one part"),
    ],
)  # fmt: skip
async def test_a_form_that_is_none_says_what_is_wrong(chunks: list[bytes], says: str) -> None:
    problem = await refused(FakeStore(), request_of(chunks), status=422, code="invalid-body")
    assert says in problem.detail
    for content_type in ("application/json", "multipart/form-data", "text/plain; boundary=b"):
        other = request_of(chunks, content_type=content_type)
        assert "`file`" in (await refused(FakeStore(), other, status=422, code="invalid-body")).detail


async def test_of_what_does_not_come_whole_nothing_is_left() -> None:
    content = b"x" * MIB
    await refused(FakeStore(), request_of([HEAD, content, None]), status=499, code="caller-left")
    away = FakeStore(error=RetryableError("postgres-unavailable", "away"))
    await refused(away, request_of([HEAD, content, TAIL]), status=503, code="not-accepted")
    full = FakeStore(error=PayloadQuotaError(1))
    problem = await refused(full, request_of([HEAD, content, TAIL]), status=429, code="too-many-payloads")
    assert problem.headers["Retry-After"] == "600"
    await refused(FakeStore(), request_of([HEAD, TAIL]), status=422, code="document-empty")
    stuck = FakeStore(pause=asyncio.Event())
    receiving = asyncio.create_task(desk(stuck).receive(USER, request_of([HEAD, content, TAIL]), is_for_job=True))
    while not stuck.sizes:
        await asyncio.sleep(0)
    receiving.cancel()
    with suppress(asyncio.CancelledError):
        await receiving
    assert stuck.deleted == list(stuck.sizes)


async def test_no_more_of_a_user_come_at_once_than_may_and_others_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WAIT_S", 0.05)
    go = asyncio.Event()
    store = FakeStore(pause=go)
    taking = desk(store)

    async def receive(user_id: str = "alice") -> Any:
        user = user_updated(user_id=user_id)
        return await taking.receive(user, request_of([HEAD, b"x" * MIB, TAIL]), is_for_job=True)

    first = [asyncio.create_task(receive()) for _ in range(files.AT_ONCE_PER_USER)]
    while len(store.sizes) < files.AT_ONCE_PER_USER:
        await asyncio.sleep(0)
    with pytest.raises(Problem, match="too many files") as caught:
        await receive()
    assert caught.value.status == 503
    others = asyncio.create_task(receive("bob"))
    while len(store.sizes) == files.AT_ONCE_PER_USER:
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*first, others)
    await receive()


async def test_a_large_file_takes_no_more_memory_than_a_small_one() -> None:
    body = [HEAD, *[b"x" * 65_536] * 3_200, TAIL]  # 200 MiB, of which the pieces are one and the same
    process, most = psutil.Process(), 0
    before = process.memory_info().rss

    class Watching(FakeStore):
        async def add_part(self, *args: Any, **more: Any) -> None:
            nonlocal most
            await super().add_part(*args, **more)
            most = max(most, process.memory_info().rss)

    made = await desk(Watching(), max_upload_mb=300).receive(USER, request_of(body), is_for_job=True)
    assert made.size == 3_200 * 65_536
    assert most - before < 20 * MIB


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\private\\notes.txt", "notes.txt"), ("a\x00b\n\u202ec.txt", "abc.txt"),
        ("Отчёт 2026.pdf", "Отчёт 2026.pdf"), ("..", ""), ("dir/", ""), ("x" * 600, "x" * 512), ("", ""),
    ],
)  # fmt: skip
def test_a_document_is_called_as_the_last_part_of_its_files_name(name: str, source: str) -> None:
    assert source_of(name) == source


@pytest.mark.parametrize("step", [3, 10_000])
async def test_the_first_field_of_a_form_is_told_and_nothing_of_the_form_is_lost(step: int) -> None:
    body = HEAD + b"content" * 2_000 + TAIL
    field, again = await first_field(request_of(body[n : n + step] for n in range(0, len(body), step)))
    assert field == "file"
    assert await again.body() == body
    field, again = await first_field(request_of([b"{}"], content_type="application/json"))
    assert field is None
    assert await again.body() == b"{}"


async def test_a_head_that_begins_over_and_over_is_looked_through_once() -> None:
    began = time.process_time()
    field, _ = await first_field(request_of([b"content-disposition: name" * 2_700]))
    assert field is None
    assert time.process_time() - began < 0.2  # it took 1.3 s, in which nobody else was answered


async def test_a_body_is_refused_beyond_its_bound() -> None:
    assert await with_at_most(request_of([b"x" * 10]), 10).body() == b"x" * 10
    with pytest.raises(Problem, match="10 bytes"):
        await with_at_most(request_of([b"x" * 11]), 10).body()
    with pytest.raises(Problem, match="10 bytes"):
        with_at_most(request_of([], content_length="11"), 10)
