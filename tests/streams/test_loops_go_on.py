"""What runs beside the work goes on after a bug in it: each of them is given one."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ingress.access.credentials import Access
from ingress.access.key_ring import KeyRing, new_key
from ingress.comparisons.comparing import Comparing
from ingress.publisher import Publisher
from ingress.submitting.idempotency import Idempotency
from processors import loops
from sinks import agent_steps, dead_letters, incidents, job_deletion, login_failures, payloads
from streams import agents, training
from streams.document_sweep import sweep_documents
from streams.watchdog import Watchdog
from streams.worker import Worker
from tests.waiting import until
from transport.clients import KafkaAccess

NOWHERE = KafkaAccess("127.0.0.1:1")


class Buggy:
    """Whatever it is asked, it has a bug at first; then there is nothing to do. `asked`: how often."""

    def __init__(self) -> None:
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: Any, **__: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise ValueError("a bug")
            return Nothing()

        return answer


class Nothing(list[Any]):
    """No row, and none of them."""

    def get(self, _key: object) -> None:
        """As a dict of rows has it."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None


SWEEPS: dict[str, Callable[[Any], Coroutine[Any, Any, None]]] = {
    "dead letters": partial(dead_letters.sweep, kept_ms=1000),
    "incidents": partial(incidents.sweep, kept_days=1),
    "steps of agents": partial(agent_steps.sweep, kept_days=1),
    "deleted jobs": job_deletion.sweep,
    "login failures": partial(login_failures.sweep, kept_days=1),
    "payloads": payloads.sweep,
    "memories": lambda store: agents.sweep_memory(store, SimpleNamespace()),
    "documents": lambda store: sweep_documents(store, SimpleNamespace()),
    "adapters": lambda store: training.forget_adapters(store, {"local": SimpleNamespace()}),
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is waited out for no time, and so is a round."""
    monkeypatch.setattr(loops, "FIRST_WAIT_S", 0)
    modules = (dead_letters, incidents, agent_steps, job_deletion, login_failures, payloads, agents)
    for module in modules:
        monkeypatch.setattr(module, "SWEEP_EVERY_S", 0)
    monkeypatch.setattr("streams.document_sweep.EVERY_S", 0)
    monkeypatch.setattr(training, "FORGET_EVERY_S", 0)


def bugs() -> float:
    """Counted so far, of all loops."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "assistant_background_bugs_total"
    )


async def outlived(store: Buggy, running: "asyncio.Future[Any]") -> None:
    try:
        await until(lambda: store.asked >= 3 or running.done())
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("what", SWEEPS)
async def test_a_sweep_goes_on(what: str) -> None:
    before, store = bugs(), Buggy()
    await outlived(store, asyncio.create_task(SWEEPS[what](store)))
    assert bugs() == before + 1


async def test_the_idempotency_keys_are_swept_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.submitting.idempotency.SWEEP_EVERY_S", 0)
    store = Buggy()
    swept = Idempotency(store, publish_timeout_s=1)  # type: ignore[arg-type]  # as far as it is asked
    swept.start()
    assert swept._sweeping is not None
    await outlived(store, swept._sweeping)


async def test_leases_of_comparisons_are_renewed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.comparisons.comparing.RENEW_EVERY_S", 0)
    store, nobody = Buggy(), SimpleNamespace(draining=False)
    comparing = Comparing(nobody, nobody, nobody, nobody, user_of=lambda _: None, users_known=bool, pace=nobody)  # type: ignore[arg-type]
    comparing._store = SimpleNamespace(renew=store.renew, lease=None)  # type: ignore[assignment]
    comparing.start()
    await outlived(store, comparing._tasks[1])
    comparing._tasks[0].cancel()
    await asyncio.gather(*comparing._tasks, return_exceptions=True)


async def test_keys_of_streams_are_looked_at_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingress.access.credentials.LOOK_EVERY_S", 0)
    store = Buggy()
    access = Access(SimpleNamespace(), KeyRing(store), SimpleNamespace())  # type: ignore[arg-type]
    held = SimpleNamespace(session=SimpleNamespace(key_id=new_key().key_id), end=lambda: None)
    access._held = {"alice": [held, Odd(store)]}  # type: ignore[list-item]
    access.start()
    assert access._looking is not None
    await outlived(store, access._looking)
    await access.stop()


class Odd:
    """Somebody who listens, with a bug."""

    def __init__(self, store: Buggy) -> None:
        self._store = store

    @property
    def session(self) -> Any:
        self._store.asked += 1
        if self._store.asked == 1:
            raise ValueError("a bug")
        return SimpleNamespace(key_id=None)


async def test_who_waits_for_a_key_is_answered_although_its_use_cannot_be_written_down() -> None:
    first, second = new_key(), new_key()

    class Store:
        async def find(self, key_ids: list[Any]) -> dict[Any, Any]:
            if first.key_id in key_ids:  # another comes meanwhile
                ring._waiting[second.key_id] = asyncio.get_running_loop().create_future()
            return {}

        async def touch(self, used: list[Any]) -> None:
            raise ValueError("a bug")

    ring = KeyRing(Store(), now=lambda: datetime.now(UTC))  # type: ignore[arg-type]
    ring._used = {first.key_id}
    assert await ring.find(first.key_id) is None
    async with asyncio.timeout(5):
        assert await ring.find(second.key_id) is None


async def test_a_producer_that_cannot_be_made_for_a_bug_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Producer:
        def __init__(self, **_: Any) -> None:
            made.append(self)

        async def start(self) -> None:
            if len(made) == 1:
                raise ValueError("a bug")

        async def stop(self) -> None:
            """Nothing is open."""

    monkeypatch.setattr("ingress.publisher.AIOKafkaProducer", Producer)
    publisher = Publisher(NOWHERE, timeout_s=1)
    publisher.start()
    await until(lambda: publisher.problem is None)
    assert len(made) == 2
    await publisher.stop()


async def test_a_workers_topics_are_watched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker.TOPICS_EVERY_S", 0)
    store, nothing = Buggy(), SimpleNamespace
    monkeypatch.setattr("streams.worker.unusable", store.unusable)
    worker = nothing(
        _settings=nothing(allowed_providers=[]), _access=None, _catalog=None, _has_acls=False, _problems={}, _roles=()
    )
    await outlived(store, asyncio.create_task(Worker._watch_topics(worker)))  # type: ignore[arg-type]


def test_a_watchdog_that_cannot_tell_whether_records_wait_still_sees_a_loop_that_stands() -> None:
    def buggy() -> float:
        raise RuntimeError("dictionary changed size during iteration")

    watchdog = Watchdog(stall_timeout_s=60, stalled_for_s=buggy)
    assert not watchdog.check(watchdog._ticked_at + 1)
    assert watchdog.check(watchdog._ticked_at + 61)
