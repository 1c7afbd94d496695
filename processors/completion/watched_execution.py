"""An answer that is told piece by piece, and looked at before each of them."""

from typing import Self

from processors.filter.answer_policy import AnswerWatch
from processors.ports import Execution
from schemas.events import StreamedRange


class WatchedExecution:
    """See `Execution`. `tell` raises WithheldError before anything is told that is not to be."""

    def __init__(self, execution: Execution, watch: AnswerWatch) -> None:
        self._execution, self._watch = execution, watch
        self._has_begun = False

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
        self._has_begun = self._has_begun or bool(text)
        if text and (told := self._watch.told(text)):
            await self._execution.tell(told)

    async def end(self, text: str) -> StreamedRange | None:
        """See `Execution.end`."""
        return await self._execution.end(text)
