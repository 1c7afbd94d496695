import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from ingress.access.credentials import Access
from ingress.access.key_ring import KeyRing
from ingress.access.login_limit import MAX_KEPT, PER_ADDRESS, LoginLimit
from ingress.access.passwords import AT_ONCE, MAX_WAITING, Passwords
from ingress.announcer import Announcer
from ingress.http.problems import Problem
from ingress.services import current_user
from ingress.users import _announced_token
from processors.errors import RetryableError
from schemas.events import UserUpdated
from sinks.login_failures import RecentFailure
from sinks.users import UserRow
from tests.conftest import SECRET
from tests.factories import user_updated
from transport.clients import KafkaAccess
from transport.table import CompactedTable
from transport.tokens import Tokens


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def refused(limit: LoginLimit, user_id: str = "alice", address: str = "a") -> Problem | None:
    try:
        limit.take(user_id, address)
    except Problem as problem:
        return problem
    return None


def test_wrong_passwords_are_counted_by_user_and_address() -> None:
    clock = Clock()
    limit = LoginLimit(per_min=3, clock=clock)
    assert [refused(limit) for _ in range(3)] == [None] * 3
    problem = refused(limit)
    assert problem is not None
    assert (problem.status, problem.code, problem.headers["Retry-After"]) == (429, "too-many-logins", "21")
    assert refused(limit, address="b") is None
    assert refused(limit, user_id="bob") is None
    clock.s += 21
    assert refused(limit) is None
    assert refused(limit) is not None


def test_replicas_learn_of_each_others_wrong_passwords() -> None:
    """As if Postgres told them: every wrong password is seen by all who have one after it."""
    clock, failures = Clock(), []
    replicas = [LoginLimit(per_min=3, clock=clock) for _ in range(4)]
    tried = []
    for n in range(40):
        limit = replicas[n % len(replicas)]
        clock.s += 0.1
        if refused(limit) is None:
            tried.append(n)
            failures.append(clock.s)
            limit.learn("alice", "a", [RecentFailure(clock.s - at, of_the_user=True) for at in reversed(failures)])
    assert len(tried) <= 3 + len(replicas) - 1
    clock.s += 60  # all is forgiven
    assert all(refused(limit) is None for limit in replicas)


def test_what_is_learnt_is_no_stricter_than_one_replica_alone() -> None:
    clock, failures = Clock(), []
    alone, learning = (LoginLimit(per_min=3, clock=clock) for _ in range(2))
    for _ in range(60):
        clock.s += 7.0
        told = [refused(limit) is None for limit in (alone, learning)]
        assert told[0] == told[1]
        if told[0]:
            failures.append(clock.s)
            recent = [RecentFailure(clock.s - at, of_the_user=True) for at in reversed(failures) if clock.s - at < 120]
            learning.learn("alice", "a", recent)


def test_an_address_is_known_by_its_failures_for_any_user() -> None:
    limit = LoginLimit(per_min=3, clock=Clock())
    limit.learn("alice", "a", [RecentFailure(0.0, of_the_user=False)] * 3 * PER_ADDRESS)
    assert refused(limit, user_id="bob") is not None
    assert refused(limit, user_id="bob", address="b") is None


def test_an_address_that_tries_many_users_is_slowed_too() -> None:
    limit = LoginLimit(per_min=3, clock=Clock())
    tried = [refused(limit, user_id=f"user-{n}") for n in range(3 * PER_ADDRESS + 1)]
    assert tried[:-1] == [None] * (3 * PER_ADDRESS)
    assert tried[-1] is not None


def test_right_passwords_cost_nothing() -> None:
    limit = LoginLimit(per_min=3, clock=Clock())
    for _ in range(100):
        assert refused(limit) is None
        limit.give_back("alice", "a")
    assert [refused(limit) for _ in range(3)] == [None] * 3
    assert refused(limit) is not None  # and earn nothing either


def test_its_table_has_a_bound() -> None:
    clock = Clock()
    limit = LoginLimit(per_min=3, clock=clock)
    for n in range(MAX_KEPT):
        refused(limit, address=f"address-{n}")
    assert len(limit._buckets) == MAX_KEPT


async def test_no_more_than_a_few_wait_for_a_hash() -> None:
    passwords = Passwords()
    stored = await passwords.hash("right")
    checks = [passwords.verify("wrong", stored) for _ in range(AT_ONCE + MAX_WAITING + 8)]
    found = await asyncio.gather(*checks, return_exceptions=True)
    busy = [each for each in found if isinstance(each, RetryableError)]
    assert len(busy) == 8
    assert found.count((False, None)) == AT_ONCE + MAX_WAITING
    assert await passwords.verify("right", stored) == (True, None)


class _Counted:
    """Counts what takes its time."""

    def __init__(self, hashing: Any) -> None:
        self._hashing, self.verified, self.hashed = hashing, 0, 0

    def hash(self, password: str) -> str:
        self.hashed += 1
        return str(self._hashing.hash(password))

    def verify(self, password: str, stored: str) -> bool:
        self.verified += 1
        return bool(self._hashing.verify(password, stored))

    def verify_and_update(self, password: str, stored: str) -> tuple[bool, str | None]:
        self.verified += 1
        return self._hashing.verify_and_update(password, stored)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("dear_hashes")
async def test_an_unknown_user_costs_what_a_wrong_password_costs_from_the_first_one_on() -> None:
    passwords = Passwords()
    stored = await passwords.hash("right")
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords._nobodys.partition("p=4$")[0] == stored.partition("p=4$")[0]  # as dear as any
    passwords._hash = counted = _Counted(passwords._hash)  # type: ignore[assignment]
    for known in (None, stored, None, stored):
        before = counted.verified
        assert (await passwords.verify("wrong", known))[0] is False
        assert (counted.verified - before, counted.hashed) == (1, 0)


async def test_no_more_than_two_are_hashed_at_once_and_none_on_the_event_loop() -> None:
    passwords, threads, most, at_once = Passwords(), set[int](), 0, 0
    lock = threading.Lock()

    class Slow:
        def hash(self, password: str) -> str:
            nonlocal most, at_once
            with lock:
                at_once += 1
                most = max(most, at_once)
                threads.add(threading.get_ident())
            time.sleep(0.02)
            with lock:
                at_once -= 1
            return password

    passwords._hash = Slow()  # type: ignore[assignment]
    await asyncio.gather(*(passwords.hash("x") for _ in range(MAX_WAITING)))
    assert most == AT_ONCE == 2
    assert threading.get_ident() not in threads


def test_of_refusals_one_a_minute_is_news() -> None:
    clock = Clock()
    limit = LoginLimit(per_min=3, clock=clock)
    told = [limit.is_news("alice", "a") for _ in range(5)]
    assert told == [True, False, False, False, False]
    assert limit.is_news("alice", "b")
    assert limit.is_news("bob", "a")
    clock.s = 60
    assert limit.is_news("alice", "a")
    for n in range(MAX_KEPT + 10):
        limit.is_news(f"user-{n}", "a")
    assert len(limit._told) == MAX_KEPT


@pytest.mark.parametrize(("running", "status", "code"), [(False, 503, "not-ready"), (True, 401, "not-authenticated")])
async def test_a_good_token_is_not_called_bad_before_the_users_are_read(running: bool, status: int, code: str) -> None:
    tokens = Tokens([SECRET], lifetime_s=60)
    table: Any = SimpleNamespace(is_running=running, values={})
    access = Access(tokens, KeyRing(SimpleNamespace()), table)  # type: ignore[arg-type]  # no key is looked up
    request: Any = SimpleNamespace(
        app=SimpleNamespace(state=SimpleNamespace(services=SimpleNamespace(access=access, user_table=table))),
        state=SimpleNamespace(), method="GET",
    )  # fmt: skip
    token = tokens.issue("alice", role="user", epoch=0)
    with pytest.raises(Problem) as caught:
        await current_user(request, token)
    assert (caught.value.status, caught.value.code) == (status, code)
    with pytest.raises(Problem) as caught:  # a bad one is bad at any time
        await current_user(request, token[:-4] + "AAAA")
    assert caught.value.status == 401
    table.is_running, table.values = True, {"alice": user_updated()}
    assert (await current_user(request, token)).user_id == "alice"


ALICE = UserRow("alice", "hash", "user", False, 0, None, True)


class _Known:
    """Takes what a login publishes and writes down."""

    async def publish(self, record: object) -> None:
        pass

    @asynccontextmanager
    async def announcing(self, user_id: str) -> AsyncIterator[UserRow]:
        yield ALICE


async def test_a_login_before_the_users_are_read_is_a_503_and_no_bug() -> None:
    table: Any = CompactedTable(KafkaAccess("nowhere:1"), "user-updated", UserUpdated)
    known: Any = _Known()
    found: Any = SimpleNamespace(user_table=table, announcer=Announcer(known, known, table, topic="user-updated"))
    with pytest.raises(Problem) as caught:
        await _announced_token(found, ALICE)
    assert (caught.value.status, caught.value.code, caught.value.headers) == (503, "not-accepted", {"Retry-After": "2"})
    table.reach_end = _raise_kafka_error
    with pytest.raises(Problem) as caught:
        await _announced_token(found, ALICE)
    assert caught.value.status == 503


async def _raise_kafka_error() -> None:
    raise KafkaConnectionError
