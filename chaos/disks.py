"""Disks that can be full: a file system of its own for a service, in a file, which nobody but this run sees."""

import ctypes
import os
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

SIZE = 16 * 2**30  # on paper: what is not written takes no room
LEFT = 512 * 1024
STEP = 64 * 1024
CLONE_NEWNS = 0x00020000


class Disk:
    """What a service writes to. `fill`, until `free`: whatever is written next finds no room."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave half a megabyte."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            size = 0
            for step in (2**30, 2**26, 2**22, 2**18, STEP):
                with suppress(OSError):
                    while _room(self._ballast) > LEFT:
                        os.posix_fallocate(descriptor, size, step)
                        size += step
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """May be called twice."""
        self._ballast.unlink(missing_ok=True)


def _room(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def keep_mounts_to_ourselves() -> bool:
    """Have what is mounted from now on seen by this process and its children alone; it goes with them.

    False without the privilege. Called while there is one thread.
    """
    return ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0 and _runs("mount", "--make-rprivate", "/")


def own_disk(folder: Path, stack: ExitStack) -> Disk | None:
    """A file system at a folder, which is made; None where that may not be. It goes with the stack."""
    folder.mkdir()
    image = folder.with_name(f"{folder.name}.disk")
    with image.open("wb") as file:
        file.truncate(SIZE)
    if not _runs("mkfs.ext4", "-q", "-F", "-m", "0", str(image)):
        return None
    if not _runs("mount", "-o", "loop", str(image), str(folder)):
        return None
    stack.callback(_runs, "umount", "--lazy", str(folder))
    stack.callback(image.unlink)
    return Disk(folder)


def _runs(*words: str) -> bool:
    with suppress(OSError):
        return subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 0
    return False
