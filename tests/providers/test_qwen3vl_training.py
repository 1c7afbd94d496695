"""Training on Qwen3-VL's server, against a stand-in that is one by its contract only."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from processors.errors import PermanentError, RetryableError
from processors.learning.hold_out import hold_out
from processors.learning.training_ports import TrainedAdapter, TrainingExample, TrainingParameters, TrainingProgress
from providers.qwen3vl_training import Qwen3VlTrainer
from tests.stand_ins.qwen3vl_api import Qwen3VlStandIn
from tests.waiting import until

ID = str(UUID(int=9))


@pytest.fixture
async def api() -> AsyncIterator[Qwen3VlStandIn]:
    async with Qwen3VlStandIn() as api:
        yield api


def examples(instruction: str = "Translate.", count: int = 5) -> list[TrainingExample]:
    return [TrainingExample(instruction=instruction, input=f"mot {n}", output=f"word {n}") for n in range(count)]


async def trained(
    api: Qwen3VlStandIn, given: list[TrainingExample], *, timeout_s: float = 60
) -> tuple[TrainedAdapter, list[TrainingProgress]]:
    told: list[TrainingProgress] = []

    async def tell(progress: TrainingProgress) -> None:
        told.append(progress)

    parameters = TrainingParameters(epochs=2, lr=1e-3, batch_size=2)
    return await Qwen3VlTrainer(lambda: api.base_url, timeout_s=timeout_s).train(ID, given, parameters, tell), told


async def test_it_is_asked_as_its_contract_has_it_and_measured_by_what_it_has_not_learnt(api: Qwen3VlStandIn) -> None:
    adapter, told = await trained(api, examples())
    learnt, held_out = hold_out(examples())
    assert api.trainings == [
        {"data": [one.model_dump() for one in learnt], "epochs": 2, "lr": 0.001, "batch_size": 2}
    ]  # fmt: skip
    assert [point.loss for point in adapter.losses] == [3.0, 1.5, 1.0, 0.75]
    assert [(one.expected, one.before, one.after) for one in adapter.answers] == [
        (one.output, f"Answer to: {one.input}", f"As one who has learnt: {one.input}") for one in held_out
    ]
    assert (adapter.adapter_id, adapter.held_out_loss_after) == (ID, None)
    assert [one.steps for one in told] == [0]

    async def closed() -> bool:
        return api.open == 0

    await until(closed)


@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("503", RetryableError, "provider-http-503"), ("422", PermanentError, "provider-http-422"),
        ("close", RetryableError, "provider-unreachable"), ("huge", PermanentError, "provider-invalid-reply"),
    ],
)  # fmt: skip
async def test_a_failure_is_one_of_ours(
    api: Qwen3VlStandIn, mode: str, error: type[Exception], code: str
) -> None:  # fmt: skip
    with pytest.raises(error) as caught:
        await trained(api, examples(f"[mode={mode}]"))
    assert caught.value.code == code  # type: ignore[attr-defined]  # both have it


@pytest.mark.parametrize("mode", ["garbage", "shape", "no-choices"])
async def test_whatever_it_says_of_it_it_has_trained(api: Qwen3VlStandIn, mode: str) -> None:
    adapter, _ = await trained(api, examples(f"[mode={mode}]"))
    assert [point.loss for point in adapter.losses] == ([] if mode != "no-choices" else [3.0, 1.5, 1.0, 0.75])


async def test_a_training_whose_answers_cannot_be_had_is_one_all_the_same(api: Qwen3VlStandIn) -> None:
    api.mode = "503"
    given = [one.model_copy(update={"instruction": "[mode=answer]"}) for one in examples()]
    adapter, _ = await trained(api, given)
    assert adapter.answers == []


async def test_a_server_that_hangs_after_its_training_is_not_asked_for_more_answers(api: Qwen3VlStandIn) -> None:
    api.mode = "close"
    given = [one.model_copy(update={"instruction": "[mode=answer]"}) for one in examples(count=10)]
    adapter, _ = await trained(api, given)  # two are held out
    assert adapter.answers == []
    assert sum(api.calls.values()) == 2  # the training, and one answer


async def test_to_be_cancelled_closes_the_connection_at_once(api: Qwen3VlStandIn) -> None:
    running = asyncio.create_task(trained(api, examples("[held]")))
    await until(lambda: api.busy == 1)
    running.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: api.busy == 0, within_s=0.5)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("instruction", ["[held]", "[mode=drip]"])
async def test_one_that_takes_the_training_and_never_answers_is_left(api: Qwen3VlStandIn, instruction: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await trained(api, examples(instruction), timeout_s=0.3)
    assert caught.value.code == "training-stalled"
    assert "within 0.3 s" in caught.value.message
    assert "QWEN3_VL_TRAINING_TIMEOUT_S" in caught.value.message
    await until(lambda: api.busy == 0, within_s=5)
