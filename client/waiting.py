"""What somebody who waits for a job sees of it."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console

STAGES = {
    "accepted": "accepted", "sanitize_prompt": "reading the prompt", "limit_rate": "checking the rate",
    "route_job": "on its way to the provider", "waiting-for-provider": "waiting for the provider",
    "generate_completion": "the model is writing", "embed_texts": "the model is reading",
    "generate_speech": "the voice is speaking", "train_adapter": "the model is learning",
}  # fmt: skip


class Waiting:
    """At a terminal a line that says where the job is; elsewhere nothing but that the rate is waited for."""

    def __init__(self, errors: Console) -> None:
        self._errors, self._began = errors, time.monotonic()
        self._spinner = errors.status("asking") if errors.is_terminal else None

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        if self._spinner is not None:
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def on_stage(self, stage: str) -> None:
        """Where the job is now."""
        if self._spinner is not None:
            self._spinner.update(f"{STAGES.get(stage, stage)} · {self.seconds:.0f} s")

    def on_wait(self, left: int, of: int) -> None:
        """So many seconds are left of those that the rate has to be waited for."""
        if self._spinner is not None:
            self._spinner.update(f"rate limit: {left} s")
        elif left == of:  # one line for whoever reads a log
            self._errors.print(f"rate limit: waiting {of} s", highlight=False)
