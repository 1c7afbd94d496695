"""`assistant jobs export`: all jobs as JSON Lines, to a file or to standard output, and on from where it broke off."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from client.api import AssistantClient, ClientError, CutError

MAX_CUTS = 5  # in a row, without a single job between them
TAIL_BYTES = 64 * 1024
TELL_EVERY_S = 10.0
NO_EXPORT = "there is a line that is no job: this is not an export's file"


@dataclass
class Progress:
    """How far it is. `cursor`: to go on behind the last job that is written."""

    jobs: int = 0
    size: int = 0
    cursor: str | None = None
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        rate = self.jobs / max(0.001, time.monotonic() - self.began)
        return f"{self.jobs:,} jobs · {self.size / 1e6:,.1f} MB · {rate:,.0f} jobs/s"


def export(
    home: Path, query: Mapping[str, str], *, output: Path | None, resume: bool, root_password: str | None
) -> int:
    """Write them; returns the exit code.

    Args:
        home: Where the token is kept.
        query: Of `GET /jobs/export`.
        output: A file; None: standard output.
        resume: The file is there already: go on behind its last whole line.
        root_password: As `AssistantClient` takes it.
    """
    errors, progress = Console(stderr=True, highlight=False), Progress(cursor=query.get("cursor"))
    try:
        if output is not None and resume:
            progress.cursor = _cut_to_whole_lines(output) or progress.cursor
        with (
            AssistantClient(home, os.environ, root_password=root_password) as client,
            _opened(output, resume=resume) as file,
        ):
            _write(client, dict(query), file, progress, _teller(errors, progress))
    except (ClientError, OSError, KeyboardInterrupt) as error:
        why = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
        on = "--resume" if output is not None else f"--cursor {progress.cursor}"
        how = f"; {progress} so far, go on with {on}" if progress.jobs else ""
        errors.print(f"{why}{how}", markup=False)
        return 1
    errors.print(str(progress), markup=False)
    return 0


def _write(
    client: AssistantClient, query: dict[str, str], file: IO[bytes], progress: Progress, tell: Callable[[], None]
) -> None:
    cuts = 0
    while True:
        if progress.cursor is not None:
            query["cursor"] = progress.cursor
        before = progress.jobs
        try:
            for line in whole_lines(client.stream("/jobs/export", query)):
                file.write(line)
                progress.jobs, progress.size, progress.cursor = (
                    progress.jobs + 1, progress.size + len(line), cursor_of(line),
                )  # fmt: skip
                tell()
        except CutError:
            cuts = 0 if progress.jobs > before else cuts + 1
            if cuts == MAX_CUTS:
                raise
            time.sleep(min(5.0, 0.5 * 2**cuts))
        else:
            file.flush()
            return


def whole_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines with their end; what comes after the last end is none. (Texts may hold what others take for one.)"""
    parts: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for other in others:
            yield b"".join(parts) + b"\n"
            parts = [other]


def cursor_of(line: bytes) -> str:
    """To go on behind this job.

    Raises:
        ClientError: It is none.
    """
    try:
        job: dict[str, Any] = json.loads(line)
        return f"{job['accepted_at']}/{job['job_id']}"
    except (ValueError, KeyError, TypeError):
        raise ClientError(NO_EXPORT) from None


def _cut_to_whole_lines(path: Path) -> str | None:
    """Take away what a broken write has left, and return where the file's last job is; None: it has none."""
    if not path.exists():
        return None
    with path.open("r+b") as file:
        if not b'{"'.startswith(file.read(2)):
            raise ClientError(NO_EXPORT)
        end = _end_of_last_line(file, file.seek(0, os.SEEK_END))
        begin = _end_of_last_line(file, end - 1) if end else 0
        file.seek(begin)
        cursor = cursor_of(file.read(end - begin)) if end else None
        file.truncate(end)
        return cursor


def _end_of_last_line(file: IO[bytes], end: int) -> int:
    """Where the last line that ends before `end` does; 0: none does."""
    while end:
        begin = max(0, end - TAIL_BYTES)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _opened(output: Path | None, *, resume: bool) -> Any:
    if output is None:
        return nullcontext(sys.stdout.buffer)
    if output.exists() and not resume:
        raise ClientError(f"{output} is there already: --resume goes on behind its last job")
    return output.open("ab")


def _teller(errors: Console, progress: Progress) -> Callable[[], None]:
    """Tells of it now and then: over the same line for people, a line at a time for logs."""
    every = 0.2 if errors.is_terminal else TELL_EVERY_S
    at = time.monotonic() + every

    def tell() -> None:
        nonlocal at
        if time.monotonic() >= at:
            at = time.monotonic() + every
            errors.print(str(progress), markup=False, end="\r" if errors.is_terminal else "\n")

    return tell
