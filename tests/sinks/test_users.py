"""Users, their keys and failed logins on a real Postgres: what a change does, and what it may not do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from processors.errors import RetryableError
from sinks.api_keys import MAX_PER_USER, ApiKeyStore, TooManyKeysError
from sinks.login_failures import LoginFailures
from sinks.pool import Pool
from sinks.postgres import InvalidCursorError
from sinks.users import LastAdminError, UserExistsError, UserStore
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=8)
    yield pool
    await pool.close()


@pytest.fixture
async def users(pool: Pool) -> UserStore:
    users = UserStore(pool)
    await users.create("root", "hash", "admin")
    await users.create("alice", "hash", "user")
    return users


async def announced(users: UserStore, user_id: str) -> None:
    async with users.announcing(user_id):
        pass


@pytest.mark.parametrize(
    ("changes", "revoke", "epoch"),
    [
        ({"disabled": True}, False, 1), ({"disabled": False}, False, 0), ({"password_hash": "other"}, False, 1),
        ({"role": "admin"}, False, 1), ({"role": "user"}, False, 0), ({"max_in_flight": 3}, False, 0), ({}, True, 1),
        ({}, False, 0), ({"rate_limit_requests": None, "max_pending": 0, "tokens_per_minute": 9}, False, 0),
        ({"disabled": True, "password_hash": "other", "role": "admin"}, False, 1),
    ],
)  # fmt: skip
async def test_a_change_is_stored_and_revokes_tokens_where_it_must(
    users: UserStore, changes: dict[str, Any], revoke: bool, epoch: int
) -> None:
    before = await users.get("alice")
    await announced(users, "alice")
    changed = await users.change("alice", changes, revoke=revoke)
    assert before is not None
    assert changed == replace(before, **changes, token_epoch=epoch, announced=False)
    assert changed == await users.get("alice")
    assert await users.unannounced(limit=10) == ["alice", "root"]


async def test_whoever_is_disabled_twice_loses_tokens_once(users: UserStore) -> None:
    for _ in range(2):
        changed = await users.change("alice", {"disabled": True})
        assert changed is not None
        assert changed.token_epoch == 1


async def test_a_password_is_changed_only_where_it_is_still_the_old_one(users: UserStore) -> None:
    assert await users.change("alice", {"password_hash": "mine"}, password_was="hash") is not None
    assert await users.change("alice", {"password_hash": "late"}, password_was="hash") is None
    await users.set_password_hash("alice", "rehashed", instead_of="hash")
    found = await users.get("alice")
    assert found is not None
    assert (found.password_hash, found.token_epoch) == ("mine", 1)


@pytest.mark.parametrize("changes", [{"disabled": True}, {"role": "user"}, None])
async def test_the_last_admin_stays(users: UserStore, changes: dict[str, Any] | None) -> None:
    async def leave(user_id: str) -> Any:
        return await (users.delete(user_id) if changes is None else users.change(user_id, changes))

    with pytest.raises(LastAdminError):
        await leave("root")
    await users.create("other", "hash", "admin")
    await users.change("other", {"disabled": True})
    with pytest.raises(LastAdminError):  # who is disabled is none
        await leave("root")
    assert await leave("alice")
    assert await users.change("root", {"password_hash": "x", "role": "admin"})
    await users.change("other", {"disabled": False})
    assert await leave("root")


async def test_of_admins_who_leave_at_once_one_stays(users: UserStore) -> None:
    names = ["root", *(f"admin-{n}" for n in range(5))]
    for name in names[1:]:
        await users.create(name, "hash", "admin")
    leaving = (
        users.delete(name) if place % 2 else users.change(name, {"disabled": True}) for place, name in enumerate(names)
    )
    found = await asyncio.gather(*leaving, return_exceptions=True)
    assert sum(isinstance(each, LastAdminError) for each in found) == 1
    rows = [row for row in await users.page(after="", limit=100) if row.role == "admin" and not row.disabled]
    assert len(rows) == 1


async def test_a_deleted_user_is_gone_for_ever_and_nobody_gets_the_name(users: UserStore, pool: Pool) -> None:
    keys = ApiKeyStore(pool)
    key = await keys.create(uuid4(), user_id="alice", name="ci", digest=b"x", scopes=["jobs"], expires_at=None)
    assert key is not None
    assert await users.delete("alice")
    assert not await users.delete("alice")
    assert await users.change("alice", {"disabled": False}) is None
    with pytest.raises(UserExistsError):
        await users.create("alice", "hash", "user")
    row = await users.get("alice")
    assert row is not None
    assert (row.password_hash, row.disabled, row.token_epoch) == ("", True, 1)
    assert row.event().disabled
    assert await keys.find([key.key_id]) == {}
    assert await keys.create(uuid4(), user_id="alice", name="x", digest=b"", scopes=["jobs"], expires_at=None) is None
    listed = [found.user_id for found in await users.page(after="", limit=10, with_deleted=False)]
    assert listed == ["root"]
    assert len(await users.page(after="", limit=10)) == 2  # whoever tells a new Kafka of users tells of this one, too


async def test_what_is_announced_last_is_what_is_stored(users: UserStore, pool: Pool) -> None:
    """While one replica announces, nobody changes the user, and no other replica announces what is newer."""
    said: list[int] = []

    async def tell() -> None:
        async with users.announcing("alice") as row:
            assert row is not None
            said.append(row.token_epoch)

    async def both_wait() -> bool:
        async with pool.connection() as connection:
            waiting: int = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        return waiting == 2

    async with users.announcing("alice") as row:
        assert row is not None
        changing = asyncio.create_task(users.change("alice", {}, revoke=True))
        telling = asyncio.create_task(tell())
        await until(both_wait, within_s=4)
        said.append(row.token_epoch)
    await asyncio.gather(changing, telling)
    await tell()
    assert said[0] == 0
    assert said == sorted(said)
    assert said[-1] == 1


async def test_an_announcement_that_fails_is_still_to_be_made(users: UserStore) -> None:
    async def fail() -> None:
        async with users.announcing("alice"):
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert "alice" in await users.unannounced(limit=10)
    await announced(users, "alice")
    assert "alice" not in await users.unannounced(limit=10)


async def test_a_user_has_only_so_many_keys_however_many_are_made_at_once(users: UserStore, pool: Pool) -> None:
    keys = ApiKeyStore(pool)

    async def make() -> Any:
        return await keys.create(uuid4(), user_id="alice", name="ci", digest=b"x", scopes=["jobs"], expires_at=None)

    for _ in range(MAX_PER_USER - 2):
        await make()
    found = await asyncio.gather(*(make() for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, TooManyKeysError) for each in found) == 4
    assert len(await keys.of_user("alice")) == MAX_PER_USER


async def test_a_key_is_its_users_and_its_use_is_told_to_the_minute(users: UserStore, pool: Pool) -> None:
    keys = ApiKeyStore(pool)
    key = await keys.create(uuid4(), user_id="alice", name="ci", digest=b"x" * 32, scopes=["read"], expires_at=None)
    assert key is not None
    assert await keys.find([uuid4(), key.key_id]) == {key.key_id: key}
    await keys.touch([key.key_id])
    (used,) = await keys.of_user("alice")
    assert used.last_used_at is not None
    await keys.touch([key.key_id])
    assert await keys.of_user("alice") == [used]
    assert not await keys.delete(key.key_id, user_id="root")
    assert await keys.delete(key.key_id, user_id="alice")
    assert not await keys.delete(key.key_id, user_id=None)


async def fail(failures: LoginFailures, user_id: str, address: str = "1.2.3.4") -> None:
    await failures.add(user_id=user_id, address=address, reason="wrong-password")


async def test_failed_logins_are_listed_newest_first_page_by_page(pool: Pool) -> None:
    failures = LoginFailures(pool)
    for n in range(5):
        await fail(failures, f"user-{n % 2}", f"10.0.0.{n}")
    everything: dict[str, Any] = {"user_id": None, "address": None, "since": None, "to": None}
    seen, cursor = [], None
    while True:
        page, cursor = await failures.page(**everything, limit=2, cursor=cursor)
        seen += [failure.address for failure in page]
        if cursor is None:
            break
    assert seen == [f"10.0.0.{n}" for n in (4, 3, 2, 1, 0)]
    page, _ = await failures.page(**everything | {"user_id": "user-1"}, limit=10, cursor=None)
    assert [failure.address for failure in page] == ["10.0.0.3", "10.0.0.1"]
    page, _ = await failures.page(**everything | {"since": page[0].at, "to": page[0].at}, limit=10, cursor=None)
    assert page == []
    for bad in ("nonsense", "!", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"):
        with pytest.raises(InvalidCursorError):
            await failures.page(**everything, limit=2, cursor=bad)


async def test_who_fails_hears_what_failed_from_there_before_at_any_replica(pool: Pool) -> None:
    one, other = LoginFailures(pool), LoginFailures(pool)
    await fail(one, "alice")
    await fail(one, "bob")
    await fail(one, "alice", "5.6.7.8")
    await one.add(user_id="alice", address="1.2.3.4", reason="slowed-down")
    async with pool.connection() as connection:
        await connection.execute("UPDATE login_failures SET at = at - interval '30 s' WHERE user_id = 'bob'")
    await fail(other, "old")
    async with pool.connection() as connection:
        await connection.execute("UPDATE login_failures SET at = at - interval '3 min' WHERE user_id = 'old'")
    found = await other.add(user_id="alice", address="1.2.3.4", reason="unknown-user")
    assert [(round(failure.age_s, -1), failure.of_the_user) for failure in found] == [
        (0, True), (0, True), (30, False),
    ]  # fmt: skip


async def test_a_name_of_any_kind_is_written_down(pool: Pool) -> None:
    failures = LoginFailures(pool)
    for name in ("", "a\x00b", "x" * 5000, "Ñandú", "'; DROP TABLE users --"):
        await fail(failures, name)
    page, _ = await failures.page(user_id=None, address=None, since=None, to=None, limit=10, cursor=None)
    assert [found.user_id for found in reversed(page)] == ["", "ab", "x" * 128, "Ñandú", "'; DROP TABLE users --"]


async def test_failed_logins_go_when_they_are_old_or_too_many(pool: Pool) -> None:
    failures = LoginFailures(pool)
    for n in range(6):
        await fail(failures, f"user-{n}")
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE login_failures SET at = at - $1::interval WHERE user_id = 'user-4'", timedelta(days=31)
        )
    assert await failures.delete_old(kept_days=30) == 1
    assert await failures.delete_old(kept_days=30, kept=3) == 3
    page, _ = await failures.page(user_id=None, address=None, since=None, to=None, limit=10, cursor=None)
    assert [failure.user_id for failure in page] == ["user-5", "user-3"]


async def test_without_postgres_nothing_is_decided(pool: Pool) -> None:
    away = Pool("postgresql://nobody@127.0.0.1:1/none", size=1)
    for asked in (
        UserStore(away).change("alice", {}), UserStore(away).delete("alice"), ApiKeyStore(away).find([uuid4()]),
        LoginFailures(away).add(user_id="a", address="b", reason="unknown-user"),
    ):  # fmt: skip
        with pytest.raises(RetryableError):
            await asked
    await away.close()
