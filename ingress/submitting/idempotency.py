"""`Idempotency-Key`: the same request twice is one job. Source: draft-ietf-httpapi-idempotency-key-header-07.

The row is written before the request is published, and says afterwards that it was. Between the two the process may
die: then whoever asks again with the key publishes again, with the same job_id and so the same event id, which the
work stages recognise.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request

from ingress.http.problems import Problem
from ingress.outcome import Outcome
from processors.errors import RetryableError
from processors.loops import end, repeat
from sinks.idempotency import SWEEP_ROWS, IdempotencyStore, KeyRow

logger = logging.getLogger(__name__)

REPLAYED = {"Idempotency-Replayed": "true"}
# Outcomes 400 and 429, and a quarantine's 403: nothing was done, the same may be asked again.
FREEING = {
    "no-such-provider", "unsupported-parameter", "images-unsupported", "no-such-payload", "rate-limited", "quarantined",
    "embedding-mismatch",
    "no-such-speaker", "no-such-language", "speech-too-long", "nothing-to-say",
}  # fmt: skip
FIRST_LOOK_S, MAX_LOOK_S = 0.05, 1.0
SWEEP_EVERY_S = 60.0
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Keyed:
    """What a request says of itself: its key, and a hash of method, path and body."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done for a request.

    Attributes:
        job_id: Its job.
        publish: It is ours to publish.
        replayed: Somebody asked before.
        outcome: How the job ended, where that is known already.
        certain: A refusal speaks of all of the job: its request was published once.
        keyed: The request's key, if it has one.
    """

    job_id: UUID
    publish: bool = True
    replayed: bool = False
    outcome: Outcome | None = None
    certain: bool = True
    keyed: Keyed | None = None


KeyHeader = Annotated[
    str | None, Header(alias="Idempotency-Key", description="1-255 visible ASCII: the same again is the same job")
]


def checked_key(request: Request, key: str | None) -> str | None:
    """The request's key, if it has one.

    Raises:
        Problem: It is none.
    """
    if key is None:
        return None
    if len(request.headers.getlist("idempotency-key")) > 1 or not _VISIBLE.fullmatch(key):
        raise Problem(400, "idempotency-key-invalid", "Idempotency-Key is one value of 1-255 visible ASCII characters")
    return key


async def idempotency_key(request: Request, key: KeyHeader = None) -> Keyed | None:
    """The request's key with the fingerprint of its body, if it has one; raises as `checked_key`."""
    if checked_key(request, key) is None or key is None:
        return None
    return Keyed(key, fingerprint(request.method, request.scope["route"].path, await request.body()))


Key = Annotated[Keyed | None, Depends(idempotency_key)]


def fingerprint(method: str, path: str, body: bytes | bytearray) -> bytes:
    """The same for bodies that say the same, whatever their spelling."""
    # What is no JSON as we know it stays as it is: then only the same bytes are the same.
    with contextlib.suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return sha256(b"\n".join((method.encode(), path.encode(), body))).digest()


class Idempotency:
    """Decides whose turn it is; raises RetryableError while Postgres is away."""

    def __init__(self, store: IdempotencyStore, *, publish_timeout_s: float) -> None:
        """`publish_timeout_s`: after so long without a word of the first publication it is made again."""
        self._store, self._publish_timeout_s = store, publish_timeout_s
        self._sweeping: asyncio.Task[None] | None = None

    async def turn(self, user_id: str, keyed: Keyed, *, mint: Callable[[], UUID], check: Callable[[], None]) -> Turn:
        """What is to be done for a request with a key; waits while it is not known whether another one's was accepted.

        Args:
            user_id: Whose key.
            keyed: The key.
            mint: Makes a new job's id.
            check: Called before anything is published; raises where nothing should be.

        Raises:
            Problem: The key was used for another request, or it is still not known.
        """
        deadline, pause = monotonic() + 2 * self._publish_timeout_s + 5, FIRST_LOOK_S
        job_id: UUID | None = None
        while monotonic() < deadline:
            row = await self._store.find(user_id, keyed.key)
            if row is None:
                check()
                job_id = mint()
                if await self._store.claim(user_id, keyed.key, keyed.fingerprint, job_id):
                    return Turn(job_id, keyed=keyed)
                continue  # another was faster by a moment
            job_id = row.job_id
            if row.fingerprint != keyed.fingerprint:
                detail = "this Idempotency-Key was used for another request: give each request a key of its own"
                raise Problem(422, "idempotency-key-reused", detail)
            if row.accepted:
                if _is_free(row):
                    await self._store.free(user_id, keyed.key, row.job_id, publications=row.publications)
                    continue
                return Turn(row.job_id, False, True, _outcome(row), row.publications == 1, keyed)
            if row.published_ago_s < self._publish_timeout_s:
                await asyncio.sleep(pause)
                pause = min(MAX_LOOK_S, pause * 2)
                continue
            check()
            if await self._store.take_over(user_id, keyed.key, row):
                return Turn(row.job_id, True, True, None, False, keyed)
        headers = {"Location": f"/jobs/{job_id}"} if job_id else {}
        detail = "the first request with this Idempotency-Key may have been accepted: send it again with the same key"
        raise Problem(504, "outcome-unknown", detail, headers=headers, job_id=str(job_id))

    async def accepted(self, user_id: str, turn: Turn) -> None:
        """The brokers have the request."""
        if turn.keyed is not None:
            with contextlib.suppress(RetryableError):  # the job's own row will say so
                await self._store.accepted(user_id, turn.keyed.key, turn.job_id)

    async def not_accepted(self, user_id: str, turn: Turn) -> None:
        """It was not handed over to them."""
        if turn.keyed is not None:
            with contextlib.suppress(RetryableError):  # it is taken over after the publish timeout
                await self._store.give_back(user_id, turn.keyed.key, turn.job_id)

    async def ended(self, user_id: str, turn: Turn, outcome: Outcome | None) -> None:
        """The job has ended while somebody waited: refused as 400 or 429, it leaves the key to be used anew."""
        if turn.keyed is not None and turn.certain and outcome is not None and _code(outcome.error) in FREEING:
            with contextlib.suppress(RetryableError):  # the next one with the key sees it in the job's row
                await self._store.free(user_id, turn.keyed.key, turn.job_id, publications=1)

    # --- what has expired ---

    def start(self) -> None:
        """Begin to sweep; returns at once."""
        sweeping = repeat(self._sweep, "sweeping idempotency keys", every_s=SWEEP_EVERY_S, begins_at_once=False)
        self._sweeping = asyncio.create_task(sweeping, name="idempotency keys")

    async def stop(self) -> None:
        """May be called without `start`."""
        if self._sweeping is not None:
            await end(self._sweeping)

    async def _sweep(self) -> None:
        while await self._store.delete_expired() == SWEEP_ROWS:
            await asyncio.sleep(0)


def _is_free(row: KeyRow) -> bool:
    """True where the job was refused as 400 or 429, and nothing else of it can still be under way.

    A request that was published twice may be refused the second time while the first one's job runs: that outcome
    then yields, so until the job's time is over nobody knows that it was refused.
    """
    return _code(row.error) in FREEING and (row.publications == 1 or row.is_over)


def _outcome(row: KeyRow) -> Outcome | None:
    if row.status is None or row.status == "pending":
        return None
    return Outcome(row.status, row.result, row.error, replayed=True)


def _code(error: dict[str, object] | None) -> object:
    return error["code"] if error else None
