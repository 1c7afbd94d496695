"""The process that trains one adapter: `python -m training PARENT FILE MEMORY_BYTES CPU_S FILE_BYTES`.

The job is its standard input (`training.job`), FILE the descriptor that the adapter is written to. What it says is a
JSON line for each step, and in the end `{"done": ...}` or `{"code": ..., "message": ...}`.
"""

import errno
import os
import sys
import traceback

from parsing import confined
from training.job import CannotTrainError, read_job
from training.telling import fail, tell


def main() -> None:
    """Train it."""
    parent, file, memory_bytes, cpu_s, file_bytes = map(int, sys.argv[1:])
    confined.without_network()
    confined.follow(parent)
    try:
        job = read_job(sys.stdin)
        tell(loading=True)
        # Only now, for torch takes its time; and before it is confined, for it opens libraries and maps files.
        from training.adapter_file import AdapterFile
        from training.course import ready, run_course

        adapter, pupil = AdapterFile(file), ready(job)
        confined.forbid()
        confined.confine(
            memory_bytes=memory_bytes, cpu_s=cpu_s, most_cpu_s=cpu_s, file_bytes=file_bytes, may_have_threads=True
        )
        done = run_course(job, pupil, adapter)
    except Exception as error:
        traceback.print_exc()  # for who runs this by hand: the worker does not listen, for it may quote an example
        fail(*_told(error, memory_bytes, file_bytes))
    else:
        tell(done=done)
    os._exit(0)  # torch takes its time to go


def _told(error: Exception, memory_bytes: int, file_bytes: int) -> tuple[str, str]:
    """Code and message."""
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return "training-too-large", f"it takes more than {memory_bytes >> 20} MiB of memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "training-no-room", "the disk that the adapter is to lie on is full: make room there, and train again"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "training-too-large", f"the adapter takes more than {file_bytes >> 20} MiB"
    if isinstance(error, ArithmeticError):
        return "training-diverged", str(error)
    if isinstance(error, CannotTrainError):
        return "training-failed", str(error)
    return "training-failed", f"it ended with {type(error).__name__}"


if __name__ == "__main__":
    main()
