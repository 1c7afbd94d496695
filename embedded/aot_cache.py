"""Classes that Java keeps loaded and linked between starts (JEP 514): a start then takes half of the CPU.

The Java that comes as a package has no such archive of its own. One run in a scratch folder makes it, once for each
version; Java itself refuses one that is not of this Java, these options and these jars, and starts without.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from embedded.errors import EmbeddedError

WAIT_S = 120.0  # for another that makes it; then this start does without
LOOK_S = 0.1


def options(file: Path, train: Callable[[Sequence[str]], None], *, making: Callable[[], None]) -> list[str]:
    """Options of a Java that starts from the archive; none where it could not be made.

    Args:
        file: The archive. An empty one says that Java made none here: delete it to try again.
        train: Runs the program once, with the options that it is given, and ends it. Where that fails, the next start
            tries again.
        making: Called before the archive is made; not where it is there.
    """
    if not file.exists():
        with contextlib.suppress(OSError):  # a cache that is full, or not ours to write to
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.with_suffix(".lock").open("w") as lock:
                _hold(lock)  # of several that start together one makes it
                if not file.exists():
                    making()
                    _make(file, train)
    return [f"-XX:AOTCache={file}"] if file.exists() and file.stat().st_size else []


def _hold(lock: IO[str]) -> None:
    """Until the file is closed.

    Raises:
        TimeoutError: Somebody else has it, for too long: it may have been stopped.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(LOOK_S)


def _make(file: Path, train: Callable[[Sequence[str]], None]) -> None:
    for left in file.parent.glob(f"{file.stem}.making-*"):  # by one that was killed
        left.unlink(missing_ok=True)
    made = file.with_suffix(f".making-{os.getpid()}")
    try:
        train([f"-XX:AOTCacheOutput={made}"])
    except EmbeddedError:  # its real start will tell, if that fails too
        made.unlink(missing_ok=True)
        return
    made.touch()
    made.rename(file)
