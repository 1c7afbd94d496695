"""Images into the payload store, before anything that names them is published."""

from contextlib import suppress
from datetime import datetime
from uuid import UUID

from ingress.http.problems import Problem
from ingress.http.uploads import Upload
from processors.completion.with_image import GONE, NO_SUCH_PAYLOAD
from processors.errors import RetryableError
from schemas.events import UserUpdated
from schemas.requests import ImageReference
from sinks.payloads import Payload, PayloadQuotaError, PayloadStore


class Images:
    """Of users, each of whom may have `user_bytes` of them."""

    def __init__(self, store: PayloadStore, *, user_bytes: int) -> None:
        self._store, self._user_bytes = store, user_bytes

    async def keep(self, user: UserUpdated, upload: Upload, *, job_id: UUID | None) -> datetime:
        """Store one; until when it is kept. `job_id`: whose end is its own, if it is there for one.

        Raises:
            Problem: The user has as much there as one may have, or Postgres is away.
        """
        payload = Payload(
            upload.payload_id, user.user_id, job_id, upload.media_type, upload.sha256, upload.content
        )  # fmt: skip
        try:
            return await self._store.store(payload, user_bytes=self._user_bytes)
        except PayloadQuotaError as error:
            raise Problem(429, error.code, error.message, headers={"Retry-After": "600"}, retry_after_s=600) from None
        except RetryableError:
            raise _away() from None

    async def check(self, user: UserUpdated, reference: ImageReference) -> None:
        """Raise Problem where it is none that the user has, or nobody can tell."""
        try:
            size = await self._store.size(reference.payload_id, user_id=user.user_id)
        except RetryableError:
            raise _away() from None
        if size is None:
            raise Problem(400, NO_SUCH_PAYLOAD, GONE)

    async def forget(self, user: UserUpdated, reference: ImageReference) -> None:
        """Nobody will ask for it; if it cannot be deleted now, its time ends it."""
        with suppress(RetryableError):
            await self._store.delete(reference.payload_id, user_id=user.user_id)

    async def delete(self, user: UserUpdated, payload_id: UUID) -> bool:
        """True if the user had it; raises RetryableError while Postgres is away."""
        return await self._store.delete(payload_id, user_id=user.user_id)


def _away() -> Problem:
    detail = "images cannot be kept at the moment; nothing was accepted, try again"
    return Problem(503, "not-accepted", detail, headers={"Retry-After": "2"})
