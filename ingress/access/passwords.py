"""Passwords: Argon2id with the parameters of RFC 9106 (64 MiB each), so at most two at once, off the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

from processors.errors import RetryableError

AT_ONCE = 2
MAX_WAITING = 20  # some 50 ms each on two cores: a second until it is one's turn


class Passwords:
    """Hashes and checks; every method raises RetryableError where too many wait for it."""

    def __init__(self) -> None:
        self._hash = PasswordHash.recommended()
        # Made now: to make it for the first one who is unknown would tell that they are.
        self._nobodys = self._hash.hash("nobody's password")
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """As it is stored."""
        async with self._turn():
            return await asyncio.to_thread(self._hash.hash, password)

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether it fits, and a newer hash where the parameters have changed since.

        `stored` None: a user whom there is not; takes as long as one whom there is.
        """
        if stored is None:
            async with self._turn():
                await asyncio.to_thread(self._hash.verify, password, self._nobodys)
            return False, None
        async with self._turn():
            try:
                return await asyncio.to_thread(self._hash.verify_and_update, password, stored)
            except UnknownHashError:
                return False, None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise RetryableError("logins-busy", "too many passwords wait to be checked")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
