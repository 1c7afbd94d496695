"""A program that the supervisor keeps running."""

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """How to start it, how to tell that it works, how to end it.

    Attributes:
        name: As in `assistant status`; survives a restart.
        argv: Program and arguments.
        healthy: True once it does its work; asked again and again, bounded by the caller.
        env: Its whole environment.
        http: Where it answers HTTP, if it does.
        run_as: (uid, gid) to become, where we are root and it must not be.
        stop_signal: What it takes as a request to finish.
        stop_timeout_s: After that it is killed.
        start_timeout_s: After that a start has failed.
    """

    name: str
    argv: Sequence[str]
    healthy: Callable[[], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    http: str | None = None
    run_as: tuple[int, int] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    start_timeout_s: float = 60.0
