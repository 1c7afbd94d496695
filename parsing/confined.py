"""Takes from the process that reads a file what it does not need: network, programs, writing, memory and time.

The kernel's bounds hold for native code, too; what Python code does is stopped by an audit hook, which cannot be
removed. Where a kernel does not let a process give up its network, the hook is what stands.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
OPEN_FILES = 64
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = (
    "socket.", "subprocess.", "urllib.", "http.client.", "ftplib.", "smtplib.", "os.exec", "os.fork", "os.forkpty",
    "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "os.remove", "os.rename", "os.mkdir", "os.rmdir",
    "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.putenv", "os.kill", "shutil.",
    "tempfile.", "pty.", "mmap.__new__", "webbrowser.", "ctypes.dlopen",
)  # fmt: skip


class ForbiddenError(RuntimeError):
    """Something tried what reading a file does not need."""


def follow(parent: int) -> None:
    """Die with the parent, however it dies; be nicer than all else."""
    os.nice(19)
    if sys.platform == "linux":
        if os.getsid(0) == os.getpid():  # a session has its own share of the processors, in which alone nice counts
            with contextlib.suppress(OSError):  # of kernels without autogroups
                Path("/proc/self/autogroup").write_text("19", encoding="ascii")
        _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            os._exit(1)


def without_network() -> bool:
    """Leave the network, where the kernel lets it. Must be called while the process has one thread."""
    if sys.platform != "linux":
        return False
    libc = _libc()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET))


def confine(
    *, memory_bytes: int, cpu_s: float, most_cpu_s: float, file_bytes: int = 0, may_have_threads: bool = False
) -> None:
    """Bound what it may take from now on; `memory_bytes` beside what it has.

    `file_bytes`: of a file that it has open for writing; 0: it writes to a pipe, and to nothing else.
    """
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_AS, _address_space() + memory_bytes),
    ):
        resource.setrlimit(kind, (most, most))
    if not may_have_threads:  # the kernel counts them as processes
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # not for root, whom the kernel does not count
    resource.setrlimit(resource.RLIMIT_CPU, (max(1, round(cpu_s)), max(1, round(most_cpu_s))))


def allow_cpu(seconds: float) -> None:
    """Let it compute that long in all; the most was said in `confine`."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(max(1, round(seconds)), most), most))


def forbid() -> None:
    """From now on Python code opens no socket, starts no program and writes no file."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        flags = arguments[2]
        if isinstance(flags, int) and flags & _WRITING:
            raise ForbiddenError("a file was to be written")
    elif event.startswith(_FORBIDDEN):
        raise ForbiddenError(f"{event} was called")


def _address_space() -> int:
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
