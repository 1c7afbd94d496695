"""What training needs from outside, as Protocols; the adapters are in `providers/` and `sinks/`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from schemas.requests import BatchSize, Epochs, LearningRate


class Trained(BaseModel):
    """What training is told, and what comes of it."""

    model_config = ConfigDict(frozen=True)


class TrainingExample(Trained):
    """One thing to learn, as `instruction examples` has it."""

    instruction: str
    input: str
    output: str


class TrainingParameters(Trained):
    """How often all examples are gone through, how far each step goes, and how many examples a step looks at."""

    epochs: Epochs = 3
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 4


class TrainingProgress(Trained):
    """How far it is. `steps`: of the whole training, 0 where nobody knows; `loss`: of this step, None likewise."""

    epoch: int
    step: int
    steps: int
    loss: float | None


class LossPoint(Trained):
    """The loss over the examples of one step; steps count from 1."""

    step: int
    loss: float


class HeldOutAnswer(Trained):
    """What the model says to an example that it has not learnt from, without the adapter and with it."""

    instruction: str
    input: str
    expected: str
    before: str
    after: str


class TrainedAdapter(Trained):
    """What came of a training. The losses on the examples held out are None where the trainer does not measure them."""

    adapter_id: str
    losses: list[LossPoint]
    held_out_loss_before: float | None
    held_out_loss_after: float | None
    answers: list[HeldOutAnswer]


class AdapterTrainer(Protocol):
    """Trains adapters of one provider's model. Its calls raise `RetryableError` and `PermanentError`."""

    @property
    def name(self) -> str:
        """The provider's, as in `ALLOWED_PROVIDERS`."""
        ...

    async def train(
        self,
        adapter_id: str,
        examples: Sequence[TrainingExample],
        parameters: TrainingParameters,
        tell: Callable[[TrainingProgress], Awaitable[None]],
    ) -> TrainedAdapter:
        """Train an adapter and have it ready for use.

        Called again with the same id after a worker has died: it begins anew, and nothing of the first try is left.
        Cancelled by asyncio's cancellation: it ends its child at once and leaves nothing behind.

        Args:
            adapter_id: Safe as a file's name (`[0-9a-f-]`, 36 characters).
            examples: What there is, in a fixed order; `hold_out.hold_out` parts what is learnt from what is asked.
            parameters: How.
            tell: Awaited with each progress; quick, and may be called as often as one likes.
        """
        ...

    async def forget(self, adapter_id: str) -> None:
        """Delete an adapter; nothing happens where there is none."""
        ...

    def unavailable(self) -> str | None:
        """Why it cannot train here, in a sentence that names the command; None where it can."""
        ...
