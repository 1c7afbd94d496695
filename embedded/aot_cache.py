"""Classes that Java keeps loaded and linked between starts (JEP 514): a start then takes half of the CPU.

The Java that comes as a package has no such archive of its own. One run in a scratch folder makes it, once for each
version; Java itself refuses one that is not of this Java, these options and these jars, and starts without.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from embedded.errors import EmbeddedError


def options(file: Path, train: Callable[[Sequence[str]], None], *, making: Callable[[], None]) -> list[str]:
    """Options of a Java that starts from the archive; none where it could not be made.

    Args:
        file: The archive. An empty one says that making it failed here: delete it to try again.
        train: Runs the program once, with the options that it is given, and ends it.
        making: Called before the archive is made; not where it is there.
    """
    if not file.exists():
        with contextlib.suppress(OSError):  # a cache that is full, or not ours to write to
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # of several that start together one makes it
                if not file.exists():
                    making()
                    _make(file, train)
    return [f"-XX:AOTCache={file}"] if file.exists() and file.stat().st_size else []


def _make(file: Path, train: Callable[[Sequence[str]], None]) -> None:
    made = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(EmbeddedError):  # what the program itself could not do, its real start will tell
        train([f"-XX:AOTCacheOutput={made}"])
    made.touch()
    made.rename(file)
