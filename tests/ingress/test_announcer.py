"""What is stored of a user is told to everybody, at last also what was cut short."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from ingress import announcer
from ingress.announcer import Announcer, NotKnownError, announce
from ingress.publisher import NotAcceptedError
from processors.errors import RetryableError
from schemas.envelope import Record
from schemas.events import UserUpdated
from sinks.users import UserRow
from tests.waiting import until

ALICE = UserRow("alice", "secret-hash", "user", True, 3, None, False, max_pending=7)


class World:
    """A store and a Kafka. `away`: which of them does not answer."""

    def __init__(self) -> None:
        self.rows, self.records, self.away = {"alice": ALICE}, list[Record](), set[str]()
        self.looks = 0

    @asynccontextmanager
    async def announcing(self, user_id: str) -> AsyncIterator[UserRow | None]:
        row = self.rows.get(user_id)
        yield row
        if row is not None:
            self.rows[user_id] = replace(row, announced=True)

    async def unannounced(self, *, limit: int) -> list[str]:
        self.looks += 1
        if "postgres" in self.away:
            raise RetryableError("postgres-unavailable", "it is away")
        return [row.user_id for row in self.rows.values() if not row.announced][:limit]

    def check(self) -> None:
        if "kafka" in self.away:
            raise NotAcceptedError("it is away")

    async def publish(self, record: Record) -> None:
        self.check()
        self.records.append(record)

    async def reach_end(self) -> None:
        pass

    def announcer(self) -> Announcer:
        world: Any = self
        return Announcer(world, world, world, topic="user-updated")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(announcer, "MAX_BACKOFF_S", 0.02)


async def test_a_change_is_told_as_it_is_stored_and_without_the_password() -> None:
    world = World()
    await world.announcer().tell("alice")
    (record,) = world.records
    assert record.key == b"alice"
    event = UserUpdated.model_validate_json(record.value or b"")
    assert event == UserUpdated(user_id="alice", role="user", disabled=True, token_epoch=3, max_pending=7)
    assert b"secret-hash" not in (record.value or b"")
    assert world.rows["alice"].announced
    await world.announcer().tell("nobody")
    assert len(world.records) == 1


async def test_what_was_cut_short_is_told_once_all_answer_again() -> None:
    world = World()
    world.away = {"kafka"}
    with pytest.raises(NotKnownError):
        await world.announcer().tell("alice")
    assert not world.rows["alice"].announced
    looking = world.announcer()
    looking.start()
    for away in ({"kafka"}, {"postgres"}, {"kafka", "postgres"}):
        world.away, looks = away, world.looks
        await until(lambda looks=looks: world.looks > looks + 2)
        assert world.records == []
    world.away = set()
    await until(lambda: world.records)
    looks = world.looks
    await until(lambda: world.looks > looks + 2)
    assert len(world.records) == 1  # and not again
    await looking.stop()
    await looking.stop()


async def test_one_who_looks_leaves_alone_what_somebody_else_has_told_meanwhile() -> None:
    world: Any = World()
    world.rows["alice"] = replace(ALICE, announced=True)
    await announce("alice", world, world, "user-updated", again=False)
    assert world.records == []
    await announce("alice", world, world, "user-updated")  # a new Kafka beside an old Postgres
    assert len(world.records) == 1
