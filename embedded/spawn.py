"""Starts a child that never outlives its parent, not even on kill -9."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO

from embedded.part import Part

PR_SET_PDEATHSIG = 1
KILLED_WITHIN_S = 60  # the kernel's part: it may have to wait for a disk that others keep busy


def spawn(part: Part, *, stdout: int | IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start it, in a process group of its own so that Ctrl-C reaches only the supervisor.

    Not in a session of its own: Linux gives each session as much of the processors as any other (autogroups), so what
    is nice in one would hold up all the others as if it were not. Source: sched(7), "The autogroup feature".
    Must be called from the main thread: the kernel ties the child's end to the thread that forked it.
    """
    return subprocess.Popen(
        list(part.argv),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=dict(part.env) or None,
        cwd=part.cwd,
        process_group=0,
        preexec_fn=_before_exec(part.run_as, os.getpid()),
    )


def _before_exec(run_as: tuple[int, int] | None, parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def prepare() -> None:
        if run_as is not None:
            os.setgroups([])
            os.setgid(run_as[1])
            os.setuid(run_as[0])
        if libc is not None:
            # After setuid, which would clear it. SIGKILL: a parent that is gone can wait for nothing.
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return prepare
