"""CPU of processes, with all that they have started."""

import os
from collections.abc import Mapping

import psutil


class Cpu:
    """Groups of processes by name; `since` tells what each has used."""

    def __init__(self, groups: Mapping[str, list[int]]) -> None:
        """`groups`: name -> process ids, whose children are counted with them. Ours is added as `load`."""
        self._groups = {**groups, "load": [os.getpid()]}
        self._before = self._now()

    def since(self, jobs: int) -> dict[str, float]:
        """CPU ms per job by group, since this was made."""
        return {name: (used - self._before[name]) / jobs * 1000 for name, used in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: sum(map(self._seconds, pids)) for name, pids in self._groups.items()}

    @staticmethod
    def _seconds(pid: int) -> float:
        process = psutil.Process(pid)
        if pid == os.getpid():  # its children are the other groups
            return float(sum(process.cpu_times()[:2]))
        # Of children that have ended as much as was waited for (Postgres's sessions), and those that live.
        ended_too = sum(process.cpu_times()[:4])
        return float(ended_too + sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True)))
