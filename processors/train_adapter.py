"""Stage: training-requested -> job-finished; how far it is, and the adapter, are told and kept on the way."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from time import monotonic
from typing import Any, NoReturn, Protocol
from uuid import UUID

from processors.errors import PermanentError, RetryableError
from processors.filter.answer_policy import AnswerPolicy, Sent
from processors.generate_completion import FILTERED_ANSWER
from processors.learning.adapter_ports import SHARED, AdapterLedger, ExampleReader, NotBegunError
from processors.learning.hold_out import MIN_EXAMPLES, hold_out
from processors.learning.training_ports import (
    AdapterTrainer,
    HeldOutAnswer,
    LossPoint,
    TrainedAdapter,
    TrainingExample,
    TrainingParameters,
    TrainingProgress,
)
from processors.stage import Drop, Emit, StageResult
from schemas.events import Job, JobError, JobFinished, TrainingProgressed, TrainingRequested
from schemas.request_fields import without_unstorable
from schemas.requests import TrainingRequest

NO_TRAINING, TOO_FEW, DELETED = "training-unavailable", "too-few-examples", "adapter-deleted"
INTERRUPTED = "interrupted"
CUT_SHORT = "the training was cancelled, its time was over, or its worker has stopped: its job tells"
BEAT_S = 5.0
SAYING_S = 3.0  # at its end, that it has ended: not longer, for whoever stops a worker waits
MAX_POINTS = 500  # of a curve, so that it fits beside others into a page
MAX_ANSWER_CHARS = 2_000


def too_few(count: int) -> str:
    """That there are so few examples, and what to do."""
    are = "is one example" if count == 1 else f"are {count or 'no'} examples"
    return (
        f"there {are} of yours, and training needs at least {MIN_EXAMPLES}: give more with POST /instruction/smart/add"
    )


class TrainingProgressWriter(Protocol):
    """Tells whoever waits how far a training is; what cannot be told is lost."""

    async def tell(self, job: Job, progress: TrainingProgressed) -> None:
        """Tell it, unless the last word of this job is younger than half a second."""
        ...


class _LostError(Exception):
    """The row is another try's, or nobody's."""


async def train_adapter(
    event: TrainingRequested,
    *,
    trainers: Mapping[str, AdapterTrainer],
    adapters: AdapterLedger,
    examples: ExampleReader,
    progress: TrainingProgressWriter,
    answers: AnswerPolicy,
    now: datetime,
    beat_s: float = BEAT_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> StageResult:
    """Have the provider's model learn from the user's examples.

    It begins anew where a worker has died with it in hand: each try makes an adapter with an id of its own, only the
    newest one's is kept, and what an earlier one has left is forgotten.

    Args:
        event: What is to be trained.
        trainers: Those that this worker has, by provider.
        adapters: Where it is kept which there are.
        examples: Where the user's examples are.
        progress: Tells how far it is.
        answers: What of the answers to the examples held out is not to be told.
        now: The time of the call.
        beat_s: How often is said that it goes on.
        sleep: Between two such words.

    Returns:
        `Emit` with one `JobFinished`: the adapter's summary, or `training-unavailable`, `too-few-examples`,
        `adapter-exists`, `too-many-adapters`, `adapter-deleted`; `Drop` where another worker has taken it over.

    Raises:
        RetryableError, PermanentError: As the trainer or a store raised them; `trainer-busy`.
    """
    job, request = event.job, event.request
    trainer = trainers.get(event.provider)
    why_not = f"{event.provider} does not train here" if trainer is None else trainer.unavailable()
    if trainer is None or why_not is not None:
        return _failed(event, NO_TRAINING, why_not or "", now)
    used = await examples.lessons(job.user_id)
    if len(used.examples) < MIN_EXAMPLES:
        return _failed(event, TOO_FEW, too_few(len(used.examples)), now)
    try:
        begun = await adapters.begin(
            job, request, provider=event.provider, is_shared=event.provider in SHARED
        )  # fmt: skip
    except NotBegunError as error:
        return _failed(event, error.code, error.message, now)
    if not isinstance(begun, UUID):  # whoever made it has not come to say so
        return _done(event, begun, used.total, now)
    training = _Training(begun, event, trainer, adapters, progress, used.examples)
    try:
        trained = await training.run(beat_s=beat_s, sleep=sleep)
        summary = await _kept(adapters, begun, _told(trained, training.losses, answers), sleep)
    except _LostError:
        summary = None
    except BaseException as error:
        await _say_failed(adapters, begun, error)
        raise
    if summary is not None:
        return _done(event, summary, used.total, now)
    with contextlib.suppress(RetryableError, PermanentError):
        await trainer.forget(str(begun))
    if await adapters.is_anyones(job, request.name):
        return Drop("taken-over")
    message = f"the adapter {request.name} was deleted while it was being trained"
    return _failed(event, DELETED, message, now)


class _Training:
    """One try: the trainer at work, and beside it the word that it goes on."""

    def __init__(
        self, adapter_id: UUID, event: TrainingRequested, trainer: AdapterTrainer, adapters: AdapterLedger,
        progress: TrainingProgressWriter, examples: Sequence[TrainingExample],
    ) -> None:  # fmt: skip
        self._id, self._event, self._trainer, self._adapters = adapter_id, event, trainer, adapters
        self._progress, self._examples = progress, examples
        self.losses: list[LossPoint] = []
        self._newest = TrainingProgress(epoch=0, step=0, steps=0, loss=None)
        self._began = monotonic()
        self._learnt, self._held_out = (len(part) for part in hold_out(examples))

    async def run(self, *, beat_s: float, sleep: Callable[[float], Awaitable[None]]) -> TrainedAdapter:
        """What came of it. Raises _LostError where it is not this try's any more, and what the trainer raises."""
        await self._beat_once()
        work = self._trainer.train(str(self._id), self._examples, _parameters(self._event.request), self._tell)
        training, beating = asyncio.ensure_future(work), asyncio.ensure_future(self._beat(beat_s, sleep))
        both: list[asyncio.Future[Any]] = [training, beating]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return training.result() if training.done() else beating.result()
        finally:
            for one in both:
                one.cancel()
            # However it ends, the trainer has to be done with it: its child is not to outlive it.
            await asyncio.gather(*both, return_exceptions=True)

    async def _tell(self, newest: TrainingProgress) -> None:
        loss = newest.loss if newest.loss is not None and isfinite(newest.loss) else None
        self._newest = newest.model_copy(update={"loss": loss})
        if loss is not None and (not self.losses or self.losses[-1].step < newest.step):
            self.losses.append(LossPoint(step=newest.step, loss=loss))
        await self._say()

    async def _say(self) -> None:
        newest, request = self._newest, self._event.request
        told = TrainingProgressed(
            epoch=newest.epoch, epochs=request.epochs, step=newest.step, steps=newest.steps, loss=newest.loss,
            elapsed_s=round(monotonic() - self._began, 1),
        )  # fmt: skip
        await self._progress.tell(self._event.job, told)

    async def _beat(self, beat_s: float, sleep: Callable[[float], Awaitable[None]]) -> NoReturn:
        while True:
            await sleep(beat_s)
            await self._beat_once()

    async def _beat_once(self) -> None:
        """Without a database it goes on: what is in hand is worth more than to be seen."""
        with contextlib.suppress(RetryableError):
            if not await self._adapters.beat(
                self._id, thinned(self.losses), examples=self._learnt, held_out=self._held_out
            ):
                raise _LostError
        await self._say()


def thinned(points: Sequence[LossPoint], *, most: int = MAX_POINTS) -> list[LossPoint]:
    """At most so many of them, evenly, the first and the last always."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[index * last // (most - 1)] for index in range(most)]


def _parameters(request: TrainingRequest) -> TrainingParameters:
    return TrainingParameters(epochs=request.epochs, lr=request.lr, batch_size=request.batch_size)


async def _kept(
    adapters: AdapterLedger, adapter_id: UUID, trained: TrainedAdapter, sleep: Callable[[float], Awaitable[None]]
) -> dict[str, Any] | None:
    """Its summary. While the store is away it waits: an hour's work is not thrown away for that."""
    while True:
        try:
            return await adapters.finish(adapter_id, trained)
        except RetryableError:
            await sleep(1.0)


async def _say_failed(adapters: AdapterLedger, adapter_id: UUID, error: BaseException) -> None:
    """If it can be said now; what was not said is seen, for nothing beats any more."""
    code, message = INTERRUPTED, CUT_SHORT
    if isinstance(error, (RetryableError, PermanentError)):
        code, message = error.code, error.message
    elif isinstance(error, Exception):
        code, message = "unexpected-error", "a bug in the stage; its traceback is in the worker's log"
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(adapters.fail(adapter_id, code, message)), SAYING_S)


def _told(trained: TrainedAdapter, heard: Sequence[LossPoint], answers: AnswerPolicy) -> TrainedAdapter:
    """As it may be kept and shown. `heard`: the curve as it was told on the way, for who does not give it at last."""
    losses = [point for point in trained.losses or heard if isfinite(point.loss)]
    return trained.model_copy(update={
        "losses": thinned(losses), "answers": [_shown(answer, answers) for answer in trained.answers],
        "held_out_loss_before": _finite(trained.held_out_loss_before),
        "held_out_loss_after": _finite(trained.held_out_loss_after),
    })  # fmt: skip


def _shown(answer: HeldOutAnswer, policy: AnswerPolicy) -> HeldOutAnswer:
    sent = Sent(answer.instruction, (answer.input, answer.expected))
    texts = {name: without_unstorable(getattr(answer, name)) for name in HeldOutAnswer.model_fields}
    for name in ("before", "after"):
        if policy.judge(texts[name], sent) is not None:
            texts[name] = FILTERED_ANSWER
    return HeldOutAnswer(**{name: text[:MAX_ANSWER_CHARS] for name, text in texts.items()})


def _finite(number: float | None) -> float | None:
    return number if number is not None and isfinite(number) else None


def _done(event: TrainingRequested, summary: dict[str, Any], total: int, now: datetime) -> Emit:
    left_out = max(0, total - summary["examples"] - summary["held_out"])
    result = {
        **summary, "left_out": left_out, "meta": {"provider": event.provider, "job_id": str(event.job.job_id)},
    }  # fmt: skip
    return Emit((JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit),))


def _failed(event: TrainingRequested, code: str, message: str, now: datetime) -> Emit:
    error = JobError(code=code, message=message)
    return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))
