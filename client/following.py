"""Follows a job that takes long to its end, with a bar that tells how far it is; Ctrl-C cancels it."""

import contextlib
from collections.abc import Callable
from typing import Any, Self
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from client.api import AssistantClient, ClientError

FIRST_POLL_S, MAX_POLL_S = 0.1, 1.0
INTERRUPTED = 130  # as shells say it of Ctrl-C


class Bar:
    """Over the same line for people; nothing for logs."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
                   TimeElapsedColumn())  # fmt: skip
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str, total: int | None = None) -> None:
        """The next piece of work, in place of the one before."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name[-40:], total=total, told="")

    def tell(self, told: str, completed: int = 0, of: int | None = None) -> None:
        """How far it is; `of`: None where nobody knows."""
        if self._task is not None:
            self._progress.update(self._task, completed=completed, total=of, told=told)


def followed(
    client: AssistantClient, job_id: str, working: Callable[[dict[str, Any]], None], sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Its last view; `working` is given each of those before."""
    try:
        poll = FIRST_POLL_S
        while (view := client.send("GET", f"/jobs/{job_id}"))["status"] == "pending":
            working(view)
            sleep(poll)
            poll = min(MAX_POLL_S, poll * 1.5)
    except KeyboardInterrupt:
        with contextlib.suppress(ClientError):
            client.cancel(UUID(job_id))
        raise
    ended: dict[str, Any] = view
    return ended


def say(console: Console, text: str) -> None:
    """A line as it stands: nothing in it is markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
