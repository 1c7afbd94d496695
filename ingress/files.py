"""Files into the payload store, part by part as they come: whatever their size, little of them is in memory."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from fastapi import Request

from ingress.http.file_forms import FileForm
from ingress.http.problems import Problem
from processors.errors import PermanentError, RetryableError
from schemas.events import UserUpdated
from schemas.ids import uuid7
from schemas.requests import MAX_SOURCE_CHARS, DocumentReference
from sinks.payloads import KEPT, PART_BYTES, UNCLAIMED_KEPT, PayloadQuotaError, PayloadStore

MIB = 1_048_576
LARGEST_UPLOAD_BYTES = 1025 * MIB  # the most that MAX_UPLOAD_MB may be, and the form around it
FORM_BYTES = 65_536  # around the file
AT_ONCE, AT_ONCE_PER_USER, WAIT_S = 32, 8, 30.0  # each is up to some 3 MiB in memory
MAX_USERS = 10_000


@dataclass(slots=True)
class ReceivedFile:
    """A file that is in the store. `is_claimed`: a job or its user has it; else it is to be forgotten."""

    payload_id: UUID
    name: str
    size: int
    sha256: str
    until: datetime
    is_claimed: bool = False

    @property
    def reference(self) -> DocumentReference:
        """As events will carry it."""
        return DocumentReference(payload_id=self.payload_id, size=self.size, sha256=self.sha256)


class Files:
    """Of users, each of whom may have `user_bytes` of them and of images."""

    def __init__(self, store: PayloadStore, *, user_bytes: int, max_upload_mb: int) -> None:
        self._store, self._user_bytes, self._max_mb = store, user_bytes, max_upload_mb
        self._places = _Places()

    async def receive(self, user: UserUpdated, request: Request, *, is_for_job: bool) -> ReceivedFile:
        """Store the file of a form as it comes; where it does not come whole, nothing of it is left.

        `is_for_job`: it is soon claimed by one, or forgotten; else it is kept for 15 days.

        Raises:
            Problem: There is none, it is too large or empty, the user has as much as one may have, or it cannot be
                kept now.
        """
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_mb * MIB + FORM_BYTES:
            raise self._too_large()
        form = FileForm(request)
        async with self._places.taken(user.user_id):
            payload_id = uuid7()
            try:
                return await self._store_all(user, form, payload_id, is_for_job=is_for_job)
            except BaseException as error:
                with suppress(RetryableError):  # what is not deleted now goes by itself
                    await asyncio.shield(self._store.delete(payload_id, user_id=user.user_id))
                if isinstance(error, PayloadQuotaError):
                    raise _quota(error) from None
                if isinstance(error, RetryableError):
                    raise _away() from None
                raise

    async def close(self) -> None:
        """Close the store's connections, which are nobody else's."""
        await self._store.close()

    async def claim(self, user: UserUpdated, file: ReceivedFile, job_id: UUID) -> None:
        """It goes with this job. Raises Problem where it cannot be said so."""
        try:
            file.is_claimed = await self._store.claim_file(file.payload_id, user_id=user.user_id, job_id=job_id)
        except RetryableError:
            raise _away() from None
        if not file.is_claimed:
            raise _away()

    async def forget(self, user: UserUpdated, file: ReceivedFile) -> None:
        """Nobody will ask for it; if it cannot be deleted now, its time ends it."""
        with suppress(RetryableError):
            await self._store.delete(file.payload_id, user_id=user.user_id)

    async def _store_all(
        self, user: UserUpdated, form: FileForm, payload_id: UUID, *, is_for_job: bool
    ) -> ReceivedFile:
        hasher, buffer, size, number = sha256(), bytearray(), 0, 0

        async def store(part: bytes) -> None:
            nonlocal number
            if number == 0:
                await self._store.begin_file(payload_id, user_id=user.user_id, media_type=form.media_type)
            await asyncio.to_thread(hasher.update, part)
            await self._store.add_part(payload_id, number, part, user_id=user.user_id, user_bytes=self._user_bytes)
            number += 1

        async for piece in form.parts():
            size += len(piece)
            if size > self._max_mb * MIB:
                raise self._too_large()
            buffer += piece
            while len(buffer) >= PART_BYTES:
                part = bytes(buffer[:PART_BYTES])
                del buffer[:PART_BYTES]
                await store(part)
        if not size:
            raise Problem(422, "document-empty", "the file is empty: there is nothing to keep")
        if buffer:
            await store(bytes(buffer))
        digest = hasher.hexdigest()
        kept = UNCLAIMED_KEPT if is_for_job else KEPT
        until = await self._store.complete_file(payload_id, user_id=user.user_id, sha256=digest, kept=kept)
        if until is None:
            raise _away()
        return ReceivedFile(payload_id, form.name, size, digest, until, is_claimed=not is_for_job)

    def _too_large(self) -> Problem:
        detail = f"the file is larger than {self._max_mb} MiB (MAX_UPLOAD_MB): split it, and send its parts"
        return Problem(413, "file-too-large", detail)


class _Places:
    """How many files come at once: of all users, and of one; the others wait for a while."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._of: OrderedDict[str, asyncio.Semaphore] = OrderedDict()

    @asynccontextmanager
    async def taken(self, user_id: str) -> AsyncIterator[None]:
        own = self._of.setdefault(user_id, asyncio.Semaphore(AT_ONCE_PER_USER))
        self._of.move_to_end(user_id)
        if len(self._of) > MAX_USERS:
            self._of.popitem(last=False)
        try:
            async with asyncio.timeout(WAIT_S) as waiting, own, self._all:
                waiting.reschedule(None)
                yield
        except TimeoutError:
            detail = "too many files are under way here; try again"
            raise Problem(503, "overloaded", detail, headers={"Retry-After": "5"}) from None


def source_of(name: str) -> str:
    """What a document is called whose sender has not said it: the last part of its file's name, as people read it."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(char for char in last if char.isprintable()).strip()[:MAX_SOURCE_CHARS]
    return "" if shown in (".", "..") else shown


def _quota(error: PermanentError) -> Problem:
    return Problem(429, error.code, error.message, headers={"Retry-After": "600"}, retry_after_s=600)


def _away() -> Problem:
    detail = "files cannot be kept at the moment; nothing was accepted, try again"
    return Problem(503, "not-accepted", detail, headers={"Retry-After": "2"})
