"""Passwords: Argon2id with the parameters of RFC 9106 (64 MiB each), so at most two at once, off the event loop."""

import asyncio

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

AT_ONCE = 2


class Passwords:
    """Hashes and checks."""

    def __init__(self) -> None:
        self._hash = PasswordHash.recommended()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """As it is stored."""
        async with self._slots:
            return await asyncio.to_thread(self._hash.hash, password)

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether it fits, and a newer hash where the parameters have changed since.

        `stored` None: a user whom there is not; takes as long as one whom there is.
        """
        if stored is None:
            if self._nobodys is None:
                self._nobodys = await self.hash("nobody's password")
            async with self._slots:
                await asyncio.to_thread(self._hash.verify, password, self._nobodys)
            return False, None
        async with self._slots:
            try:
                return await asyncio.to_thread(self._hash.verify_and_update, password, stored)
            except UnknownHashError:
                return False, None
