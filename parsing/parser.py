"""The adapter: a file is read by a child process, and whatever becomes of it is one clear error."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from parsing.bounds import MAX_LINE_BYTES, MAX_PORTION_LETTERS, MAX_PORTION_PIECES, MIB, Bounds
from parsing.refusals import too_large, unreadable
from processors.documents.document_ports import Block, Pages
from processors.errors import PermanentError, RetryableError

ROOT = Path(__file__).resolve().parent.parent
LAST_BREATH_S = 5
_TOO_LONG = {signal.SIGXCPU, signal.SIGKILL}  # its own bound; the kernel's, which is out of memory or time


class _Said(BaseModel):
    """A line of the child: a portion, an error, or its end."""

    done: bool = False
    code: Annotated[str, Field(max_length=64)] | None = None
    message: Annotated[str, Field(max_length=1000)] = ""
    read: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] | None = None
    pieces: Annotated[
        list[tuple[Annotated[str, Field(max_length=MAX_PORTION_LETTERS)], int | None, int | None]],
        Field(max_length=MAX_PORTION_PIECES),
    ] = []


_SAID = TypeAdapter(_Said)


class ChildParser:
    """Reads files, each in a process of its own. Source of the bounds: OWASP's rules for uploads, and measurements."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()

    async def parse(self, path: Path) -> AsyncGenerator[Pages, None]:
        """As in `DocumentParser`. The child ends with the iteration, however that ends.

        Raises:
            RetryableError: `parser-starved`: the machine was too busy to let it work.
        """
        child = await self._start(path)
        is_over = False
        try:
            async for said in self._lines(child):
                is_over = said.done or said.code is not None
                if said.done:
                    return
                if said.code is not None:
                    raise PermanentError(said.code, said.message)
                yield Pages(tuple(Block(text, page, level) for text, page, level in said.pieces), said.read, said.total)
            raise await self._death(child)
        finally:
            await _end(child, is_over=is_over)

    async def _start(self, path: Path) -> asyncio.subprocess.Process:
        with path.open("rb") as file:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-s", "-B", "-m", "parsing.child", str(os.getpid()), self._bounds.as_json(),
                stdin=file,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # it may quote the file
                cwd="/",
                env=_environment(),
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the worker, which ends it
            )  # fmt: skip

    async def _lines(self, child: asyncio.subprocess.Process) -> AsyncIterator[_Said]:
        assert child.stdout is not None  # noqa: S101  # for mypy: it is a pipe
        while True:
            try:
                async with asyncio.timeout(self._bounds.idle_s):
                    line = await child.stdout.readline()
            except TimeoutError:
                raise self._slow(child) from None
            except ValueError:  # longer than any line that it may say
                raise unreadable("reading it gave nonsense") from None
            if not line.endswith(b"\n"):
                return
            try:
                yield _SAID.validate_json(line)
            except ValidationError:
                raise unreadable("reading it gave nonsense") from None

    def _slow(self, child: asyncio.subprocess.Process) -> Exception:
        """Nothing came for too long: because of the file, if it could compute meanwhile."""
        computed_s = 0.0
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(child.pid).cpu_times()
            computed_s = times.user + times.system
        if computed_s < min(self._bounds.cpu_s, self._bounds.idle_s) / 2:
            return RetryableError("parser-starved", "this machine was too busy to read the document")
        return too_large(f"for {self._bounds.idle_s:g} s nothing more of it could be read")

    async def _death(self, child: asyncio.subprocess.Process) -> Exception:
        """It ended without a word."""
        code = await child.wait()
        if code < 0 and -code in _TOO_LONG:
            return too_large(
                f"reading it takes more than {self._bounds.cpu_s:g} s of computing time, or more than "
                f"{self._bounds.memory_bytes // MIB} MiB of memory"
            )
        return unreadable("reading it failed")


async def _end(child: asyncio.subprocess.Process, *, is_over: bool) -> None:
    """Return once it is gone, also while being cancelled. `is_over`: it has said its last word, and ends by itself."""
    if is_over:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_BREATH_S):
                await child.wait()
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    await asyncio.shield(child.wait())


def _environment() -> dict[str, str]:
    """Nothing of the worker's: its environment holds secrets."""
    return {
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "PATH": "",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "DO_NOT_TRACK": "true",
        "MALLOC_ARENA_MAX": "2",
    }
