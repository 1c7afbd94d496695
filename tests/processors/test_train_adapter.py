"""A training: told as it goes, kept by the newest try only, and over at once when it is cancelled."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import nan
from typing import Any
from uuid import UUID, uuid4

import pytest

from processors.errors import PermanentError, RetryableError
from processors.filter.answer_policy import AnswerPolicy
from processors.generate_completion import FILTERED_ANSWER
from processors.learning.adapter_ports import NotBegunError, UsedExamples
from processors.learning.hold_out import MAX_HELD_OUT, hold_out
from processors.learning.training_ports import (
    HeldOutAnswer,
    LossPoint,
    TrainedAdapter,
    TrainingExample,
    TrainingParameters,
    TrainingProgress,
)
from processors.stage import Drop, Emit
from processors.train_adapter import MAX_ANSWER_CHARS, MAX_POINTS, thinned, train_adapter
from schemas.events import Job, JobFinished, TrainingProgressed, TrainingRequested
from schemas.requests import TrainingRequest
from tests.factories import NOW, job
from tests.waiting import until

Tell = Callable[[TrainingProgress], Awaitable[None]]


def lessons(count: int) -> list[TrainingExample]:
    return [TrainingExample(instruction="Translate.", input=f"mot {n}", output=f"word {n}") for n in range(count)]


def requested(**fields: Any) -> TrainingRequested:
    request = TrainingRequest(name="polite", **fields)
    return TrainingRequested(job=job(kind="training"), provider="local", request=request, timeout_s=60)


class FakeTrainer:
    """Tells two steps, then waits where it is told to; `ended`: how often it came to its end, however that was."""

    name = "local"

    def __init__(self, *, why_not: str | None = None, error: Exception | None = None, answer: str = "word") -> None:
        self.why_not, self.error, self.answer = why_not, error, answer
        self.go_on, self.began = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.ended, self.forgotten, self.given = 0, list[str](), list[Any]()

    def unavailable(self) -> str | None:
        return self.why_not

    async def forget(self, adapter_id: str) -> None:
        self.forgotten.append(adapter_id)

    async def train(
        self, adapter_id: str, examples: Sequence[TrainingExample], parameters: TrainingParameters, tell: Tell
    ) -> TrainedAdapter:
        self.given.append((adapter_id, list(examples), parameters))
        try:
            for step, loss in ((1, 3.0), (2, nan)):
                await tell(TrainingProgress(epoch=1, step=step, steps=2, loss=loss))
            self.began.set()
            await self.go_on.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.ended += 1
        said = HeldOutAnswer(instruction="i\x00", input="x", expected="y", before="b", after=self.answer)
        return TrainedAdapter(
            adapter_id=adapter_id, losses=[], held_out_loss_before=2.0, held_out_loss_after=nan, answers=[said]
        )


class FakeLedger:
    """One row. `mine`: False: another try, or nobody, has it."""

    def __init__(self, *, begun: Any = None) -> None:
        self.begun, self.id = begun, uuid4()
        self.mine, self.is_taken, self.away = True, False, 0
        self.beats: list[Sequence[LossPoint]] = []
        self.finished: TrainedAdapter | None = None
        self.failed: tuple[str, str] | None = None
        self.shared: list[bool] = []

    async def begin(
        self, job: Job, request: TrainingRequest, *, provider: str, is_shared: bool
    ) -> UUID | dict[str, Any]:
        self.shared.append(is_shared)
        if isinstance(self.begun, Exception):
            raise self.begun
        return self.begun or self.id

    async def beat(self, adapter_id: UUID, losses: Sequence[LossPoint], *, examples: int, held_out: int) -> bool:
        self.beats.append(losses)
        return self.mine

    async def finish(self, adapter_id: UUID, trained: TrainedAdapter) -> dict[str, Any] | None:
        if self.away:
            self.away -= 1
            raise RetryableError("postgres-unavailable", "away")
        self.finished = trained
        return {"adapter": "polite", "examples": 4, "held_out": 1} if self.mine else None

    async def fail(self, adapter_id: UUID, code: str, message: str) -> None:
        self.failed = (code, message)

    async def is_anyones(self, job: Job, name: str) -> bool:
        return self.is_taken


class Scene:
    def __init__(self, *, examples: int = 5, **trainer: Any) -> None:
        self.trainer, self.ledger, self.told = FakeTrainer(**trainer), FakeLedger(), list[TrainingProgressed]()
        self.used = UsedExamples(lessons(examples), examples + 2)
        self.ticks = asyncio.Event()

    async def lessons(self, user_id: str) -> UsedExamples:
        assert user_id == "alice"
        return self.used

    async def tell(self, job: Job, progress: TrainingProgressed) -> None:
        self.told.append(progress)

    async def run(self, event: TrainingRequested | None = None, *, trainers: Any = None) -> Any:
        async def tick(_: float) -> None:
            await self.ticks.wait()
            self.ticks.clear()

        return await train_adapter(
            event or requested(), trainers={"local": self.trainer} if trainers is None else trainers,
            adapters=self.ledger, examples=self, progress=self, answers=AnswerPolicy(forbidden=["wicked"]), now=NOW,
            sleep=tick,
        )  # fmt: skip


def outcome(result: Any) -> JobFinished:
    assert isinstance(result, Emit)
    (finished,) = result.events
    assert isinstance(finished, JobFinished)
    return finished


async def test_an_adapter_is_trained_told_of_and_kept() -> None:
    scene = Scene()
    event = requested(epochs=2, lr=1e-3, batch_size=8)
    result = outcome(await scene.run(event)).result
    assert result == {
        "adapter": "polite", "examples": 4, "held_out": 1, "left_out": 2,
        "meta": {"provider": "local", "job_id": str(event.job.job_id)},
    }  # fmt: skip
    parameters = TrainingParameters(epochs=2, lr=1e-3, batch_size=8)
    assert scene.trainer.given == [(str(scene.ledger.id), lessons(5), parameters)]
    assert [(one.step, one.steps, one.loss, one.epochs) for one in scene.told] == [
        (0, 0, None, 2), (1, 2, 3.0, 2), (2, 2, None, 2),
    ]  # fmt: skip
    kept = scene.ledger.finished
    assert kept is not None
    assert kept.losses == [LossPoint(step=1, loss=3.0)]  # as they were told: it gave none at the end
    assert (kept.held_out_loss_before, kept.held_out_loss_after) == (2.0, None)
    assert kept.answers[0].instruction == "i"
    assert scene.ledger.failed is None


@pytest.mark.parametrize(
    ("answer", "shown"), [("wicked words", FILTERED_ANSWER), ("x" * 9_999, "x" * MAX_ANSWER_CHARS)]
)
async def test_answers_are_filtered_and_cut_like_any_other(answer: str, shown: str) -> None:
    scene = Scene(answer=answer)
    await scene.run()
    assert scene.ledger.finished is not None
    assert scene.ledger.finished.answers[0].after == shown


@pytest.mark.parametrize(
    ("scene", "code", "words"),
    [
        (lambda: Scene(why_not="do: make lora"), "training-unavailable", "make lora"),
        (lambda: Scene(examples=3), "too-few-examples", "there are 3 examples of yours"),
        (lambda: Scene(examples=0), "too-few-examples", "POST /instruction/smart/add"),
    ],
)
async def test_what_cannot_be_trained_says_what_to_do_and_begins_nothing(scene: Any, code: str, words: str) -> None:
    at = scene()
    error = outcome(await at.run()).error
    assert error is not None
    assert error.code == code
    assert words in error.message
    assert (at.ledger.shared, at.trainer.given) == ([], [])


async def test_a_provider_that_is_not_here_and_a_name_that_is_taken_end_the_job() -> None:
    assert outcome(await Scene().run(trainers={})).error.code == "training-unavailable"  # type: ignore[union-attr]
    scene = Scene()
    scene.ledger.begun = NotBegunError("adapter-exists", "it is there")
    assert outcome(await scene.run()).error.code == "adapter-exists"  # type: ignore[union-attr]
    assert scene.trainer.given == []


async def test_what_an_earlier_owner_has_made_is_not_made_again() -> None:
    scene = Scene()
    scene.ledger.begun = {"adapter": "polite", "examples": 4, "held_out": 1}
    assert outcome(await scene.run()).result["adapter"] == "polite"  # type: ignore[index]
    assert scene.trainer.given == []


async def test_only_a_server_that_has_one_adapter_is_shared() -> None:
    scene = Scene()
    await scene.run()
    other = requested().model_copy(update={"provider": "qwen3vl"})
    await scene.run(other, trainers={"qwen3vl": scene.trainer})
    assert scene.ledger.shared == [False, True]


async def test_a_cancelled_training_ends_its_trainer_and_leaves_no_adapter() -> None:
    scene = Scene()
    scene.trainer.go_on.clear()
    running = asyncio.create_task(scene.run())
    await scene.trainer.began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.trainer.ended == 1
    assert scene.ledger.finished is None
    assert scene.ledger.failed is not None
    assert scene.ledger.failed[0] == "interrupted"


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermanentError("training-failed", "no memory"), "training-failed"), (ValueError("bug"), "unexpected-error")],
)
async def test_a_trainer_that_fails_is_told_of_and_its_adapter_has_failed(error: Exception, code: str) -> None:
    scene = Scene(error=error)
    with pytest.raises(type(error)):
        await scene.run()
    assert scene.ledger.failed is not None
    assert scene.ledger.failed[0] == code


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_try_that_has_lost_its_row_stops_and_keeps_nothing(is_taken: bool) -> None:
    scene = Scene()
    scene.trainer.go_on.clear()
    running = asyncio.create_task(scene.run())
    await scene.trainer.began.wait()
    scene.ledger.mine, scene.ledger.is_taken = False, is_taken
    scene.ticks.set()
    result = await running
    assert scene.trainer.ended == 1
    assert scene.ledger.finished is None
    assert scene.trainer.forgotten == [str(scene.ledger.id)]
    if is_taken:  # the other one tells how it ends
        assert result == Drop("taken-over")
    else:
        assert outcome(result).error.code == "adapter-deleted"  # type: ignore[union-attr]


async def test_a_try_that_loses_its_row_at_the_end_forgets_what_it_made() -> None:
    scene = Scene()
    scene.trainer.go_on.clear()
    running = asyncio.create_task(scene.run())
    await scene.trainer.began.wait()
    scene.ledger.mine, scene.ledger.is_taken = False, True
    scene.trainer.go_on.set()
    assert await running == Drop("taken-over")
    assert scene.trainer.forgotten == [str(scene.ledger.id)]


async def test_what_was_trained_is_kept_once_the_store_is_back() -> None:
    scene = Scene()
    scene.ledger.away = 1
    running = asyncio.create_task(scene.run())

    async def asked() -> bool:
        return scene.ledger.away == 0

    await until(asked)
    scene.ticks.set()
    assert outcome(await running).status == "completed"
    assert len(scene.trainer.given) == 1


def test_a_curve_keeps_its_ends_and_a_fifth_is_held_out() -> None:
    points = [LossPoint(step=step, loss=1 / step) for step in range(1, 20_001)]
    thin = thinned(points)
    assert len(thin) == MAX_POINTS
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert thinned(points[:7]) == points[:7]
    for count, held in ((4, 1), (10, 2), (1000, MAX_HELD_OUT)):
        learnt, held_out = hold_out(lessons(count))
        assert (len(learnt), len(held_out)) == (count - held, held)
        assert hold_out(lessons(count)[::-1])[1] == held_out[::-1]  # not by their order
