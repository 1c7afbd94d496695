"""An answer that is told piece by piece, and looked at before each of them."""

from processors.completion.execution_around import ExecutionAround
from processors.filter.answer_policy import AnswerWatch
from processors.ports import Execution


class WatchedExecution(ExecutionAround):
    """See `Execution`. `tell` raises WithheldError before anything is told that is not to be."""

    def __init__(self, execution: Execution, watch: AnswerWatch) -> None:
        super().__init__(execution)
        self._watch = watch

    def told(self, text: str) -> str:
        """See `ExecutionAround.told`."""
        return self._watch.told(text)
