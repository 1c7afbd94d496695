"""API keys as they are presented: `ask_<id>_<secret>`, looked up by the id, compared by the secret's hash.

What was found is believed for `FRESH_S`, so a key that is used often costs a statement every few seconds, and one
that is deleted is worth nothing after that, at every replica. However many keys are presented, known or made up, there
is one statement at a time.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID, uuid4

from processors.errors import RetryableError
from processors.loops import Loop, end
from sinks.api_keys import ApiKey, ApiKeyStore

logger = logging.getLogger(__name__)

PREFIX = "ask_"  # by it a key is told from a token, and found in what was published by mistake
SECRET_BYTES = 32
MAX_CHARS = 200
FRESH_S = 3.0
MAX_KEPT = 10_000
AT_ONCE = 500  # keys in a statement
TOUCH_EVERY_S = 60.0
NOBODYS = bytes(32)  # compared with where there is no such key


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that nobody has seen yet. `presented`: all of it, which is kept nowhere."""

    key_id: UUID
    presented: str
    digest: bytes


def new_key() -> NewKey:
    """Make one, of 256 random bits."""
    key_id, secret = uuid4(), secrets.token_urlsafe(SECRET_BYTES)
    return NewKey(key_id, f"{PREFIX}{key_id.hex}_{secret}", _digest(secret))


class KeyRing:
    """Keys that were presented to this replica."""

    def __init__(
        self, store: ApiKeyStore, *, clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        """`clock`: by which what is known grows old; `now`: by which keys expire."""
        self._store, self._clock, self._now = store, clock, now
        self._known: OrderedDict[UUID, tuple[float, ApiKey]] = OrderedDict()
        self._waiting: dict[UUID, asyncio.Future[ApiKey | None]] = {}
        self._used: set[UUID] = set()
        self._asking: asyncio.Task[None] | None = None
        self._loop = Loop("writing down when keys were used")

    async def verify(self, presented: str) -> ApiKey | None:
        """The key, or None where it is none, no more, or not with this secret.

        Raises:
            RetryableError: Postgres is away, and nothing is known of it that is fresh.
        """
        parsed = _parse(presented)
        if parsed is None:
            return None
        key_id, digest = parsed
        found = await self.find(key_id)
        fits = hmac.compare_digest(digest, NOBODYS if found is None else found.digest)
        if found is None or not fits:
            return None
        used_at, now = found.last_used_at, self._now()
        if used_at is None or (now - used_at).total_seconds() > TOUCH_EVERY_S:
            self._touch(replace(found, last_used_at=now))
        return found

    async def find(self, key_id: UUID) -> ApiKey | None:
        """The key of this id, if it has not expired; raises as `verify`."""
        at, found = self._known.get(key_id, (float("-inf"), None))
        if found is None or at + FRESH_S <= self._clock():
            found = await self._ask(key_id)
        if found is None or (found.expires_at is not None and found.expires_at <= self._now()):
            return None
        return found

    def forget(self, key_id: UUID) -> None:
        """It was deleted here: nothing that is known of it is believed any more."""
        self._known.pop(key_id, None)

    async def stop(self) -> None:
        """May be called twice."""
        if self._asking is not None:
            await end(self._asking)

    async def _ask(self, key_id: UUID) -> ApiKey | None:
        waiting = self._waiting.get(key_id)
        if waiting is None:
            waiting = self._waiting[key_id] = asyncio.get_running_loop().create_future()
            self._look()
        return await asyncio.shield(waiting)  # others wait for it, too

    def _look(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._look_up(), name="api keys")

    async def _look_up(self) -> None:
        while self._waiting or self._used:
            asked = {key_id: self._waiting.pop(key_id) for key_id in list(self._waiting)[:AT_ONCE]}
            began = self._clock()
            try:
                found = await self._store.find(list(asked)) if asked else {}
            except Exception as error:  # whoever waits must hear of it, whatever it is
                for waiting in asked.values():
                    waiting.set_exception(error)
                    waiting.exception()  # nobody may be there any more to take it
                continue
            for key_id, waiting in asked.items():
                key = found.get(key_id)
                if key is not None:
                    self._keep(key, began)
                else:
                    self._known.pop(key_id, None)
                waiting.set_result(key)
            await self._write_down()

    async def _write_down(self) -> None:
        used, self._used = self._used, set()
        if used:
            try:
                await self._store.touch(list(used))
                self._loop.went_well()
            except RetryableError as error:  # it is told again when they are used again
                logger.debug("when keys were used is not written down: %s", error.message)
            except Exception as bug:  # those who wait are looked up all the same
                self._loop.met(bug)

    def _keep(self, key: ApiKey, at: float) -> None:
        self._known[key.key_id] = (at, key)
        self._known.move_to_end(key.key_id)
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)

    def _touch(self, key: ApiKey) -> None:
        if key.key_id in self._known:  # so that it is not told again before it is read again
            self._known[key.key_id] = (self._known[key.key_id][0], key)
        self._used.add(key.key_id)
        self._look()


def _parse(presented: str) -> tuple[UUID, bytes] | None:
    if len(presented) > MAX_CHARS or not presented.isascii():
        return None
    key_id, _, secret = presented.removeprefix(PREFIX).partition("_")
    if len(key_id) != 32:
        return None
    try:
        return UUID(key_id), _digest(secret)
    except ValueError:
        return None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
