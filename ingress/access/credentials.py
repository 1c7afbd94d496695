"""Who asks, by a token or an API key; and what that is worth while an answer takes its time.

| | revoked by | known here after |
|---|---|---|
| token | its user disabled or deleted, another password or role, a logout everywhere | milliseconds |
| API key | its user disabled or deleted | milliseconds |
| API key | deleted, or expired | `FRESH_S` at most, and `LOOK_EVERY_S` for streams |

Users are known from `user-updated`, keys from Postgres.

What a stream tells ends with what it was asked for with. Jobs do not: whoever changes their password, perhaps because
somebody else knows the old one, wants that somebody to hear nothing more, and to keep their own work. Only who is
disabled or deleted loses it; the workers see to that.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal
from uuid import UUID

from ingress.access.key_ring import PREFIX, KeyRing
from ingress.http.problems import Problem
from processors.errors import RetryableError
from processors.loops import end, repeat
from schemas.events import UserUpdated
from transport.table import CompactedTable
from transport.tokens import InvalidTokenError, Tokens

logger = logging.getLogger(__name__)

Scope = Literal["read", "jobs", "admin", "users"]
EVERYTHING: frozenset[Scope] = frozenset(("read", "jobs", "admin", "users"))
LOOK_EVERY_S = 1.0
BEHIND_S, LOOK_AGAIN_S = 2.0, 0.05  # how far this replica may be behind one where a user was registered
REVOKED = "access-revoked"
WHY_REVOKED = "the token or API key that this was asked for with is no longer good: log in again"


@dataclass(frozen=True, slots=True)
class Session:
    """How somebody has shown who they are.

    Attributes:
        user: Who, with what this lets them be: of an admin's key without the scope `admin`, an ordinary user.
        scopes: What it is good for.
        epoch: Of a token.
        key_id: Of an API key; None for a token.
    """

    user: UserUpdated
    scopes: frozenset[Scope] = EVERYTHING
    epoch: int = 0
    key_id: UUID | None = None


@dataclass(slots=True)
class _Held:
    """A session on which something goes on."""

    session: Session
    on_end: Callable[[], None]
    has_ended: bool = False

    def end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.on_end()


@dataclass
class Access:
    """Of one replica. `users` must tell `hear` of each change."""

    tokens: Tokens
    keys: KeyRing
    users: CompactedTable[UserUpdated]
    _held: dict[str, list[_Held]] = field(default_factory=dict)
    _looking: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        """Begin to look whether keys are still good; returns at once."""
        looking = repeat(self._look, "looking at keys of streams", every_s=LOOK_EVERY_S, begins_at_once=False)
        self._looking = asyncio.create_task(looking, name="keys of streams")

    async def stop(self) -> None:
        """May be called twice."""
        if self._looking is not None:
            await end(self._looking)
            self._looking = None
        await self.keys.stop()

    async def session(self, presented: str | None) -> Session:
        """Of what a request has in its header.

        Raises:
            Problem: 401: it is none, or no longer good; 503: that cannot be told now.
        """
        found = None
        if presented is not None and presented.startswith(PREFIX):
            found = await self._by_key(presented)
        elif presented is not None:
            found = await self._by_token(presented)
        if found is None:
            raise Problem(
                401, "not-authenticated", "send Authorization: Bearer <token>, from POST /auth/login, or an API key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return found

    async def _by_token(self, presented: str) -> Session | None:
        try:
            claims = self.tokens.verify(presented)
        except InvalidTokenError:
            return None
        self._check_ready()
        user = await self._user(claims.user_id)
        if user is None or not _is_good(user, claims.epoch):
            return None
        return Session(user, epoch=claims.epoch)

    async def _by_key(self, presented: str) -> Session | None:
        try:
            key = await self.keys.verify(presented)
        except RetryableError as error:
            detail = "API keys cannot be looked up now; tokens of POST /auth/login that are still good work"
            raise Problem(503, error.code, detail, headers={"Retry-After": "2"}) from None
        if key is None:
            return None
        self._check_ready()
        user = await self._user(key.user_id)
        if user is None or user.disabled:
            return None
        scopes = frozenset(scope for scope in EVERYTHING if scope in key.scopes)
        if user.role == "admin" and "admin" not in scopes:
            user = user.model_copy(update={"role": "user"})
        return Session(user, scopes, key_id=key.key_id)

    async def _user(self, user_id: str) -> UserUpdated | None:
        """Of a token or a key that is good in itself; who was registered at another replica just now is waited for."""
        deadline = monotonic() + BEHIND_S
        while (user := self.users.values.get(user_id)) is None and monotonic() < deadline:
            await asyncio.sleep(LOOK_AGAIN_S)
        return user

    def _check_ready(self) -> None:
        if not self.users.is_running:
            detail = "the users are not read yet, so nobody can be told from a stranger; try again soon"
            raise Problem(503, "not-ready", detail, headers={"Retry-After": "2"})

    # --- while something goes on ---

    @contextmanager
    def held(self, session: Session, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called, once, as soon as the session is no longer good."""
        held = _Held(session, end)
        those = self._held.setdefault(session.user.user_id, [])
        those.append(held)
        try:
            if not self._is_good(held):  # revoked since the request came in
                held.end()
            yield
        finally:
            if held in those:
                those.remove(held)
            if not those:
                self._held.pop(session.user.user_id, None)

    def hear(self, user_id: str, _: UserUpdated | None) -> None:
        """A user has changed."""
        for held in list(self._held.get(user_id, ())):
            if not self._is_good(held):
                held.end()

    def _is_good(self, held: _Held) -> bool:
        session = held.session
        user = self.users.values.get(session.user.user_id)
        if user is None:
            return False
        return not user.disabled if session.key_id is not None else _is_good(user, session.epoch)

    async def _look(self) -> None:
        by_key: dict[UUID, list[_Held]] = {}
        for held in (held for those in self._held.values() for held in those):
            if held.session.key_id is not None:
                by_key.setdefault(held.session.key_id, []).append(held)
        found = await asyncio.gather(*map(self.keys.find, by_key), return_exceptions=True)
        for key, those in zip(found, by_key.values(), strict=True):
            if key is None:  # an exception: nobody knows
                for held in those:
                    held.end()


def _is_good(user: UserUpdated, epoch: int) -> bool:
    return not user.disabled and user.token_epoch <= epoch
