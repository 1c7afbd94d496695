"""An execution around another one: what is told is looked at, or changed, before the one within tells it."""

from abc import ABC, abstractmethod
from typing import Self

from processors.ports import Execution
from schemas.events import StreamedRange


class ExecutionAround(ABC):
    """See `Execution`."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._has_begun = False

    @abstractmethod
    def told(self, text: str) -> str:
        """What can be told now of all that has come, this piece included."""

    @property
    def has_begun(self) -> bool:
        """See `Execution.has_begun`; also where all of it is held back."""
        return self._has_begun

    def __enter__(self) -> Self:
        self._execution.__enter__()
        return self

    def __exit__(self, *of: object) -> None:
        self._execution.__exit__(*of)

    async def tell(self, text: str) -> None:
        """See `Execution.tell`."""
        if not text:
            return
        self._has_begun = True
        if told := self.told(text):
            await self._execution.tell(told)

    async def end(self, text: str) -> StreamedRange | None:
        """See `Execution.end`."""
        return await self._execution.end(text)
