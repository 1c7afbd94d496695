"""What everybody outside the system saw: append-only lines of JSON, fsynced; one file per process that writes.

Kinds: `intent` before a client asks and `answer` after; `call` at the provider; `receipt` at the webhook receiver;
`fault`, `kill`, `exit`, `garbage` by whoever breaks things. Every line has `kind` and `t` (seconds since 1970).
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

SYNC_EVERY_S = 0.1
Line = dict[str, Any]


class Ledger:
    """One process's part. A line is with the kernel when `write` returns, and on the disk 0.1 s later."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._closed = threading.Event()
        self._dirty = False
        self._syncing = threading.Thread(target=self._sync, name="ledger", daemon=True)
        self._syncing.start()

    def write(self, kind: str, **fields: Any) -> None:
        """Append a line."""
        line = orjson.dumps({"kind": kind, "t": time.time(), **fields}) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError("the ledger's disk is full: nothing that follows could be judged")
        self._dirty = True

    def close(self) -> None:
        """Sync and end; may be called twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._syncing.join()
            os.fsync(self._descriptor)
            os.close(self._descriptor)

    def _sync(self) -> None:
        while not self._closed.wait(SYNC_EVERY_S):
            if self._dirty:
                self._dirty = False
                os.fsync(self._descriptor)


def read(folder: Path) -> Iterator[Line]:
    """Every whole line of every file in a folder; a last one that was cut by a kill is passed over."""
    for file in sorted(folder.glob("*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield orjson.loads(line)
