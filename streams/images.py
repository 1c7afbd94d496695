"""Images for the calls that need them, and no more at once than there is memory for."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from processors.errors import PermanentError
from processors.ports import Image
from schemas.requests import MAX_IMAGE_BYTES, ImageReference
from sinks.payloads import PayloadStore

# A call has its image up to four times: as it came, in base64, in the request, and in what is being sent.
AT_ONCE_BYTES = 4 * MAX_IMAGE_BYTES
NO_STORE = "this worker has no DATABASE_URL, which is where images are: set it, then redrive the job"


class StoredImages:
    """`ImageReader` over the payload store; `store`: None in a worker that has no database."""

    def __init__(self, store: PayloadStore | None, *, at_once_bytes: int = AT_ONCE_BYTES) -> None:
        self._store, self._room = store, Room(at_once_bytes)

    @asynccontextmanager
    async def held(self, reference: ImageReference, *, user_id: str) -> AsyncIterator[Image | None]:
        """As `ImageReader.held`."""
        if self._store is None:
            raise PermanentError("no-payload-store", NO_STORE)
        # The reference may say another size: anyone may write it.
        size = await self._store.size(reference.payload_id, user_id=user_id)
        if size is None:
            yield None
            return
        async with self._room.taken(size):
            found = await self._store.load(reference.payload_id, user_id=user_id)
            yield Image(*found) if found is not None else None


class Room:
    """Bytes that several share; first come, first served, so that a large one is not passed over for ever."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for so much, and have it; what is larger than all of it has all of it."""
        size = min(size, self._size)
        if self._waiting or size > self._free:
            await self._turn(size)
        else:
            self._free -= size
        try:
            yield
        finally:
            self._give_back(size)

    async def _turn(self, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_in()  # the others may have waited behind it
            else:  # it was just let in
                self._give_back(size)
            raise

    def _give_back(self, size: int) -> None:
        self._free += size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][0] <= self._free or self._waiting[0][1].cancelled()):
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._free -= size
                turn.set_result(None)
