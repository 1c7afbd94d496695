"""Stand-ins of ports, which say what was asked of them."""

import contextlib
from typing import Self

from processors.ports import Execution
from schemas.events import Job, StreamedRange


class FakeExecution:
    """One try at an answer. `ended`: what `end` was given; `left`: it is over."""

    def __init__(self, max_chars: int, told: StreamedRange | None) -> None:
        self.max_chars, self._told = max_chars, told
        self.pieces: list[str] = []
        self.ended: str | None = None
        self.left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    @property
    def has_begun(self) -> bool:
        return bool(self.pieces)

    async def tell(self, text: str) -> None:
        self.pieces.append(text)

    async def end(self, text: str) -> StreamedRange | None:
        self.ended = text
        return self._told


class FakeDeltas:
    """Keeps what it is told. `told`: what `end` answers."""

    def __init__(self, told: StreamedRange | None = None) -> None:
        self._told = told
        self.executions: list[FakeExecution] = []

    def execution(self, job: Job, *, max_chars: int) -> FakeExecution:
        self.executions.append(FakeExecution(max_chars, self._told))
        return self.executions[-1]


class OpenGuard:
    """Keeps nobody away."""

    def calling(self, execution: Execution) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()
