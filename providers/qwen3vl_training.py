"""Training on the server of Qwen3-VL: POST /train_lora, which answers when it is done.

The server has one adapter for all who ask it, and the next training replaces it. Its contract does not say what it
answers: where that is an object with a list `losses`, these are the curve. It says nothing on the way, and a server
that loses its caller may go on all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ValidationError

from processors.errors import PermanentError, RetryableError
from processors.learning.hold_out import hold_out
from processors.learning.training_ports import (
    HeldOutAnswer,
    LossPoint,
    TrainedAdapter,
    TrainingExample,
    TrainingParameters,
    TrainingProgress,
)
from processors.ports import CompletionRequest
from providers.failures import UNREACHABLE
from providers.plain_http import asked, make_http_client, read
from providers.qwen3vl import NAME, Qwen3VlProvider
from schemas.generation import GenerationConfig

ANSWER_S, ANSWER_TOKENS = 60.0, 200
MODES: tuple[Literal["base", "lora"], ...] = ("base", "lora")


class _Reply(BaseModel):
    losses: list[float] = []


class Qwen3VlTrainer:
    """See `AdapterTrainer`."""

    name = NAME

    def __init__(self, address: Callable[[], str], *, timeout_s: float) -> None:
        """Where it is.

        Args:
            address: Of the server as it is now; connections last as long as one training.
            timeout_s: Until it has answered that it has trained. A job's end ends it sooner.
        """
        self._address, self._timeout_s = address, timeout_s

    async def train(
        self, adapter_id: str, examples: Sequence[TrainingExample], parameters: TrainingParameters,
        tell: Callable[[TrainingProgress], Awaitable[None]],
    ) -> TrainedAdapter:  # fmt: skip
        """See `AdapterTrainer.train`; the curve is the server's, the answers come from the adapter that it has then.

        Raises:
            RetryableError, PermanentError: As `CompletionProvider`; `training-stalled`.
        """
        learnt, held_out = hold_out(examples)
        body = {"data": [example.model_dump() for example in learnt], **parameters.model_dump()}
        await tell(TrainingProgress(epoch=0, step=0, steps=0, loss=None))
        async with make_http_client(base_url=self._address(), connections=1) as client:
            try:
                # Of the whole, for a server that sends a letter now and then is not done either.
                async with (
                    asyncio.timeout(self._timeout_s),
                    asked(client, NAME, "POST", "/train_lora", json=body, timeout_s=2 * self._timeout_s) as response,
                ):
                    losses = _losses(await read(response, NAME))
            except TimeoutError:
                raise PermanentError(
                    "training-stalled",
                    f"{NAME} has not said within {self._timeout_s:g} s that it has trained, and may train on: look at "
                    "its server, take fewer epochs, or raise QWEN3_VL_TRAINING_TIMEOUT_S",
                ) from None
            answers = await _answers(Qwen3VlProvider(client), UUID(adapter_id), held_out)
        return TrainedAdapter(
            adapter_id=adapter_id, losses=losses, held_out_loss_before=None, held_out_loss_after=None, answers=answers
        )

    async def forget(self, adapter_id: str) -> None:
        """See `AdapterTrainer.forget`; it stays on the server until the next training, and nobody is answered by it."""

    def unavailable(self) -> str | None:
        """See `AdapterTrainer.unavailable`."""
        return None


def _losses(body: bytes) -> list[LossPoint]:
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError:
        return []  # it has trained, whatever it says of it
    return [LossPoint(step=step, loss=loss) for step, loss in enumerate(reply.losses, 1)]


async def _answers(
    provider: Qwen3VlProvider, job_id: UUID, held_out: Sequence[TrainingExample]
) -> list[HeldOutAnswer]:  # fmt: skip
    """Without the adapter and with it. The training is worth something without them, too."""
    answers: list[HeldOutAnswer] = []
    for example in held_out:
        said = dict[str, str]()
        for mode in MODES:
            request = CompletionRequest(
                job_id=job_id, prompt=example.input or example.instruction,
                instruction=example.instruction if example.input else None,
                generation=GenerationConfig(mode=mode, max_tokens=ANSWER_TOKENS, temperature=0.0),
                timeout_s=ANSWER_S,
            )  # fmt: skip
            try:
                said[mode] = (await provider.complete(request)).text
            except (RetryableError, PermanentError) as error:
                if error.code == UNREACHABLE:
                    return answers  # it is gone, or hangs: the others would not come either, each after a minute
                break
        else:
            answers.append(
                HeldOutAnswer(
                    instruction=example.instruction,
                    input=example.input,
                    expected=example.output,
                    before=said["base"],
                    after=said["lora"],
                )
            )
    return answers
