"""What a worker says of its providers."""

import asyncio
import logging
from typing import Any

import pytest

from processors.errors import PermanentError, RetryableError
from processors.ports import Capabilities
from schemas.events import MAX_OFFERED_MODELS
from streams.provider_watch import ProviderWatch
from tests.waiting import until


class FakeProvider:
    """Lists `listed`, or raises it."""

    def __init__(self, name: str, listed: Any, *, model: str = "m-1") -> None:
        self.name, self.listed, self.model = name, listed, model
        self.capabilities = Capabilities(frozenset({"top_p", "seed"}), max_images=1, embeds=True)

    async def models(self) -> tuple[str, ...]:
        if isinstance(self.listed, BaseException):
            raise self.listed
        if self.listed is None:
            await asyncio.sleep(3600)
        listed: tuple[str, ...] = self.listed
        return listed


class Rounds:
    """Goes through a watch's rounds one by one."""

    def __init__(self, *providers: FakeProvider) -> None:
        self._next, self.done = asyncio.Event(), 0
        named: dict[str, Any] = {provider.name: provider for provider in providers}
        self.watch = ProviderWatch(named, within_s=0.05, sleep=self._sleep)
        self.task = asyncio.create_task(self.watch.run())

    async def _sleep(self, _: float) -> None:
        self.done += 1
        self._next.clear()
        await self._next.wait()

    async def one(self) -> dict[str, Any]:
        wanted = self.done + 1
        self._next.set()
        await until(lambda: self.done == wanted, within_s=5)
        return {offer.name: offer for offer in self.watch.offers()}


async def test_it_says_what_a_provider_can_do_before_it_was_asked() -> None:
    rounds = Rounds(FakeProvider("a", ("m-2",)))
    (offer,) = rounds.watch.offers()
    assert (offer.models, offer.default_model, offer.healthy) == (("m-1",), "m-1", None)
    assert (offer.can, offer.parameters) == (("stream", "images", "embeddings"), ("seed", "top_p"))
    rounds.task.cancel()


async def test_its_models_are_what_it_lists_with_the_one_that_is_asked_first() -> None:
    many = tuple(f"m-{n}" for n in range(500))
    rounds = Rounds(FakeProvider("a", ("m-2", "m-1")), FakeProvider("b", many), FakeProvider("c", ("x",), model=""))
    found = await rounds.one()
    assert found["a"].models == ("m-1", "m-2")
    assert len(found["b"].models) == MAX_OFFERED_MODELS
    assert (found["c"].models, found["c"].default_model) == (("x",), None)
    assert all(offer.healthy and offer.checked_at for offer in found.values())
    rounds.task.cancel()


@pytest.mark.parametrize(
    ("listed", "code"),
    [
        (RetryableError("provider-unreachable", "x"), "provider-unreachable"),
        (PermanentError("provider-http-401", "x"), "provider-http-401"),
        (None, "timeout"), (KeyError("a bug"), "unexpected-error"),
    ],
)  # fmt: skip
async def test_one_that_does_not_answer_is_not_well_until_it_does(
    listed: Any, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ill, well = FakeProvider("ill", listed), FakeProvider("well", ("m-1",))
    rounds = Rounds(ill, well)
    found = await rounds.one()
    assert (found["ill"].healthy, found["ill"].code, found["ill"].models) == (False, code, ("m-1",))
    assert (found["well"].healthy, found["well"].code) == (True, None)
    assert f"the provider ill is not well: {code}" in caplog.text
    await rounds.one()
    assert caplog.text.count("is not well") == 1  # said once
    ill.listed = ("m-9",)
    found = await rounds.one()
    assert (found["ill"].healthy, found["ill"].code, found["ill"].models) == (True, None, ("m-1", "m-9"))
    assert "the provider ill is well again" in caplog.text
    rounds.task.cancel()
