"""Where the tests' own Kafka, Postgres and homes keep their data: in memory, where the system has room for it.

To make its topics once, a broker waits some 700 times for the disk, which others may keep busy.
What must outlive a kill -9 does so here as well. Nothing here is about a machine that loses its power.
"""

import shutil
import tempfile
from pathlib import Path

IN_MEMORY = Path("/dev/shm")  # a folder of its own is made in it
LEAST_FREE_BYTES = 8 * 2**30


def folder(prefix: str = "assistant-tests-") -> Path:
    """A new one, which others may enter: Postgres runs as somebody else where we are root."""
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=place()))
    made.chmod(0o755)
    return made


def place() -> str:
    """In which folder the tests' data are."""
    has_room = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= LEAST_FREE_BYTES
    return str(IN_MEMORY) if has_room else tempfile.gettempdir()
