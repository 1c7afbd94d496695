"""A loop beside the work outlives what nobody has foreseen, and says so."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import REGISTRY

from processors import loops
from processors.errors import PermanentError, RetryableError
from processors.loops import Loop, end, repeat


def bugs(name: str) -> float:
    return REGISTRY.get_sample_value("assistant_background_bugs_total", {"loop": name}) or 0.0


class Script:
    """A round's work: what is raised is raised in turn, and after the last one all is well."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors, self.rounds = list(errors), 0

    async def __call__(self) -> None:
        self.rounds += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error


async def waits(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], Awaitable[Any]], rounds: int, **how: Any
) -> list[float]:
    """How long it waits after each of so many rounds."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)
        if len(found) == rounds:
            raise asyncio.CancelledError

    monkeypatch.setattr("processors.loops.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await repeat(work, **how)
    return found


async def test_a_bug_ends_no_loop_and_is_waited_out_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Script(*(ValueError(str(n)) for n in range(9)), None, ValueError("once more"))
    before = bugs("sweeping x")
    found = await waits(monkeypatch, work, 12, name="sweeping x", every_s=0.5)
    assert found == [1, 2, 4, 8, 16, 32, 60, 60, 60, 0.5, 1, 0.5]
    assert work.rounds == 12
    assert bugs("sweeping x") == before + 10


async def test_the_same_bug_is_told_once_and_again_after_all_was_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work = Script(ValueError("key 1"), ValueError("key 2"), KeyError("x"), None, KeyError("y"))
    with caplog.at_level(logging.ERROR):
        await waits(monkeypatch, work, 6, name="sweeping y", every_s=1)
    told = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert told == [ValueError, KeyError, KeyError]
    assert "a bug in sweeping y" in caplog.text


async def test_what_may_pass_is_no_bug(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    work = Script(RetryableError("database-away", "the database is away"), PermanentError("refused", "it was refused"))
    before = bugs("sweeping z")
    with caplog.at_level(logging.INFO):
        assert await waits(monkeypatch, work, 3, name="sweeping z", every_s=7, level=logging.INFO) == [7, 7, 7]
    assert bugs("sweeping z") == before
    assert [record.getMessage() for record in caplog.records] == [
        "sweeping z waits: the database is away", "sweeping z waits: it was refused",
    ]  # fmt: skip


async def test_it_may_wait_before_its_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Script()
    assert await waits(monkeypatch, work, 1, name="later", every_s=3, begins_at_once=False) == [3]
    assert work.rounds == 0


def test_a_loop_of_another_shape_waits_no_longer_than_it_says() -> None:
    loop = Loop("sending", max_wait_s=5)
    assert [loop.met(ValueError()) for _ in range(5)] == [1, 2, 4, 5, 5]
    loop.went_well()
    assert loop.met(ValueError()) == 1


# --- how one is ended ---


async def forever() -> None:
    await asyncio.Event().wait()


async def loses_a_cancellation() -> None:
    with suppress(asyncio.CancelledError):
        await forever()
    await forever()


async def closes_without_end() -> None:
    try:
        await forever()
    finally:
        await forever()


@pytest.mark.parametrize("work", [forever, loses_a_cancellation, closes_without_end])
async def test_a_task_that_goes_on_is_cancelled_again(monkeypatch: pytest.MonkeyPatch, work: object) -> None:
    monkeypatch.setattr(loops, "CANCEL_AGAIN_S", 0.01)
    task = asyncio.create_task(work())  # type: ignore[operator]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 20)
    assert task.cancelled()


async def test_what_it_raised_is_raised_and_what_has_ended_is_left() -> None:
    async def fails() -> None:
        raise ValueError("a bug")

    task = asyncio.create_task(fails())
    await asyncio.wait({task})
    with pytest.raises(ValueError, match="a bug"):
        await end(task)


async def test_whoever_waits_for_an_end_may_be_cancelled_themselves() -> None:
    task = asyncio.create_task(closes_without_end())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(end(task))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 20)
    task.cancel()
    await asyncio.wait({task})


async def test_what_never_ends_is_told_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = 0
    over = asyncio.Event()

    async def deaf() -> None:
        nonlocal cancelled
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                cancelled += 1

    monkeypatch.setattr(loops, "CANCEL_AGAIN_S", 0.01)
    task = asyncio.create_task(deaf(), name="deaf")
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 20)
    assert cancelled == loops.MOST_CANCELLATIONS
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "deaf" in caplog.text
    over.set()
    await task
