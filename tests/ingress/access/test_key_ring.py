"""API keys as they are presented: what is believed, for how long, and what that costs the database."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ingress.access import key_ring
from ingress.access.key_ring import FRESH_S, PREFIX, KeyRing, NewKey, new_key
from processors.errors import RetryableError
from sinks.api_keys import ApiKey

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeStore:
    """Keys, and what was asked: the ids of each statement."""

    def __init__(self) -> None:
        self.keys: dict[UUID, ApiKey] = {}
        self.asked: list[list[UUID]] = []
        self.touched: list[UUID] = []
        self.at_once = self.most_at_once = 0
        self.away = False

    def add(self, made: NewKey, **changes) -> None:
        key = ApiKey(made.key_id, "alice", "ci", made.digest, ("jobs",), NOW, None, NOW)
        self.keys[made.key_id] = replace(key, **changes)

    async def find(self, key_ids: Sequence[UUID]) -> dict[UUID, ApiKey]:
        self.asked.append(list(key_ids))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.away:
            raise RetryableError("postgres-unavailable", "it is away")
        return {key_id: self.keys[key_id] for key_id in key_ids if key_id in self.keys}

    async def touch(self, key_ids: Sequence[UUID]) -> None:
        self.touched += key_ids


class Scene:
    def __init__(self) -> None:
        self.store, self.s = FakeStore(), 0.0
        self.ring = KeyRing(self.store, clock=lambda: self.s, now=lambda: NOW + timedelta(seconds=self.s))  # type: ignore[arg-type]  # a fake
        self.made = new_key()
        self.store.add(self.made)

    async def passes(self, presented: str | None = None) -> bool:
        return await self.ring.verify(presented or self.made.presented) is not None


def test_a_key_has_256_random_bits_and_its_id_in_front() -> None:
    one, other = new_key(), new_key()
    assert one.presented.startswith(f"{PREFIX}{one.key_id.hex}_")
    secrets = {made.presented.rpartition(f"{made.key_id.hex}_")[2] for made in (one, other)}
    assert {len(secret) for secret in secrets} == {43}
    assert len(secrets) == 2
    assert len(one.digest) == 32
    assert one.presented.encode() not in one.digest


async def test_the_right_secret_passes_and_nothing_else_does() -> None:
    scene = Scene()
    assert await scene.passes()
    key, other = scene.made.presented, new_key()
    scene.store.add(other)
    mixed = f"{PREFIX}{scene.made.key_id.hex}_{other.presented.rpartition('_')[2]}"
    for wrong in (
        key[:-1], key + "A", key.swapcase(), key + " ", key.replace("_", "-"), PREFIX, f"{PREFIX}_", mixed, "ask_é_x",
        new_key().presented, f"{PREFIX}{scene.made.key_id}_x", f"{PREFIX}{scene.made.key_id.hex}_", key * 9,
    ):  # fmt: skip
        assert not await scene.passes(wrong), wrong


async def test_what_was_found_is_believed_for_a_while_and_not_longer() -> None:
    scene = Scene()
    for _ in range(100):
        assert await scene.passes()
    assert len(scene.store.asked) == 1
    del scene.store.keys[scene.made.key_id]
    scene.s = FRESH_S - 0.01
    assert await scene.passes()
    scene.s = FRESH_S
    assert not await scene.passes()
    assert FRESH_S < 5


async def test_it_is_as_old_as_the_question_and_not_as_the_answer() -> None:
    scene = Scene()
    find = scene.store.find

    async def slow(key_ids: Sequence[UUID]) -> dict[UUID, ApiKey]:
        found = await find(key_ids)
        scene.s += 2
        return found

    scene.store.find = slow  # type: ignore[method-assign]
    assert await scene.passes()
    del scene.store.keys[scene.made.key_id]
    scene.s = FRESH_S
    assert not await scene.passes()


async def test_a_key_that_was_deleted_here_is_asked_for_again_at_once() -> None:
    scene = Scene()
    assert await scene.passes()
    del scene.store.keys[scene.made.key_id]
    scene.ring.forget(scene.made.key_id)
    assert not await scene.passes()


async def test_an_expired_key_is_none_even_while_it_is_believed() -> None:
    scene = Scene()
    scene.store.add(scene.made, expires_at=NOW + timedelta(seconds=1))
    assert await scene.passes()
    scene.s = 1
    assert not await scene.passes()
    assert len(scene.store.asked) == 1


async def test_while_postgres_is_away_only_what_is_not_known_is_refused() -> None:
    scene, other = Scene(), new_key()
    scene.store.add(other)
    assert await scene.passes()
    scene.store.away = True
    assert await scene.passes()
    with pytest.raises(RetryableError):
        await scene.passes(other.presented)
    scene.s = FRESH_S
    with pytest.raises(RetryableError):
        await scene.passes()
    scene.store.away = False
    assert await scene.passes()
    assert await scene.passes(other.presented)


async def test_any_number_of_made_up_keys_is_one_statement_at_a_time() -> None:
    scene = Scene()
    found = await asyncio.gather(*(scene.passes(new_key().presented) for _ in range(2000)), scene.passes())
    assert found == [False] * 2000 + [True]
    assert scene.store.most_at_once == 1
    assert len(scene.store.asked) <= 2000 / key_ring.AT_ONCE + 2
    assert len(scene.ring._known) == 1
    assert scene.ring._waiting == {}


async def test_a_made_up_secret_of_a_known_key_asks_nobody() -> None:
    scene = Scene()
    assert await scene.passes()
    for n in range(50):
        assert not await scene.passes(f"{PREFIX}{scene.made.key_id.hex}_{n}")
    assert len(scene.store.asked) == 1


async def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "MAX_KEPT", 3)
    scene = Scene()
    for _ in range(10):
        made = new_key()
        scene.store.add(made)
        assert await scene.passes(made.presented)
    assert len(scene.ring._known) == 3


async def test_when_it_was_used_is_written_down_once_a_minute_and_not_for_a_wrong_secret() -> None:
    scene = Scene()
    scene.store.add(scene.made, last_used_at=None)
    assert not await scene.passes(f"{PREFIX}{scene.made.key_id.hex}_wrong")
    for _ in range(20):
        assert await scene.passes()
    assert scene.ring._asking is not None
    await scene.ring._asking
    assert scene.store.touched == [scene.made.key_id]
    scene.store.add(scene.made, last_used_at=NOW)
    for second in range(0, 61, 5):
        scene.s = float(second)
        assert await scene.passes()
    assert scene.store.touched == [scene.made.key_id]
    scene.s = 70
    assert await scene.passes()
    await scene.ring._asking
    assert scene.store.touched == [scene.made.key_id] * 2
