"""Files for the stages that read them: copies on the disk, no more at once than there is room for."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from processors.documents.document_ports import HeldFile
from processors.errors import PermanentError
from schemas.requests import DocumentReference
from sinks.payloads import PayloadStore

PREFIX = "assistant-file-"
NO_STORE = "this worker has no DATABASE_URL, which is where files are: set it, then redrive the job"


class StoredFiles:
    """`FileReader` over the payload store; `store`: None in a worker that has no database.

    A process that is killed leaves its copies behind: the next one here deletes them.
    """

    def __init__(self, store: PayloadStore | None, *, at_once: int, folder: Path | None = None) -> None:
        """`at_once`: copies; `folder`: where they are, the system's for temporary files where it is not said."""
        self._store, self._room = store, asyncio.Semaphore(at_once)
        self._folder = folder or Path(tempfile.gettempdir())
        delete_leftovers(self._folder)

    @asynccontextmanager
    async def held(self, reference: DocumentReference, *, user_id: str) -> AsyncIterator[HeldFile | None]:
        """See `FileReader.held`."""
        if self._store is None:
            raise PermanentError("no-payload-store", NO_STORE)
        facts = await self._store.file(reference.payload_id, user_id=user_id)
        if facts is None:
            yield None
            return
        async with self._room:
            # mkstemp: nobody else may read it (0600).
            descriptor, name = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()}-", dir=self._folder)
            path = Path(name)
            try:
                size = 0
                with os.fdopen(descriptor, "wb") as file:
                    async for part in self._store.parts(reference.payload_id, user_id=user_id):
                        size += await asyncio.to_thread(file.write, part)
                is_whole = size == facts.size  # it may be deleted meanwhile
                yield HeldFile(path, facts.size, facts.sha256, facts.media_type) if is_whole else None
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)


def delete_leftovers(folder: Path) -> None:
    """Delete the copies of processes that are no more."""
    for path in folder.glob(f"{PREFIX}*-*"):
        process = path.name.removeprefix(PREFIX).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            with contextlib.suppress(OSError):  # another one deletes it, or it is somebody else's
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
