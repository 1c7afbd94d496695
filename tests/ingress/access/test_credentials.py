"""Who asks and what for; and that an answer which takes its time ends with what it was asked for with."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from ingress.access import credentials as access
from ingress.access.credentials import Access, Session
from ingress.access.key_ring import KeyRing, new_key
from ingress.http.problems import Problem
from ingress.services import admin, asking_user, current_user, logged_in_user, user_admin
from schemas.events import UserUpdated
from sinks.api_keys import ApiKey
from tests.conftest import SECRET
from tests.factories import user_updated
from tests.ingress.access.test_key_ring import FakeStore
from tests.waiting import until
from transport.tokens import Tokens


class Scene:
    """A replica that knows alice and the admin root."""

    def __init__(self) -> None:
        self.table: Any = SimpleNamespace(is_running=True, values={})
        self.store = FakeStore()
        self.tokens = Tokens([SECRET], lifetime_s=60)
        self.access = Access(self.tokens, KeyRing(self.store), self.table)  # type: ignore[arg-type]  # a fake
        self.change(user_updated())
        self.change(user_updated(user_id="root", role="admin"))

    def change(self, user: UserUpdated) -> None:
        self.table.values[user.user_id] = user
        self.access.hear(user.user_id, user)

    def token(self, user_id: str = "alice", epoch: int = 0) -> str:
        return self.tokens.issue(user_id, role="user", epoch=epoch)

    def key(self, user_id: str, *scopes: str) -> str:
        made = new_key()
        now = datetime.now(UTC)
        self.store.keys[made.key_id] = ApiKey(made.key_id, user_id, "ci", made.digest, scopes, now, None, now)
        return made.presented

    def request(self, method: str = "GET") -> Any:
        found = SimpleNamespace(access=self.access, user_table=self.table)
        app = SimpleNamespace(state=SimpleNamespace(services=found))
        return SimpleNamespace(app=app, state=SimpleNamespace(), method=method)

    async def code(self, who: Callable[..., Any], presented: str, method: str = "GET") -> str | None:
        """How this is refused, None where it is not."""
        try:
            if who is admin:
                await admin(await current_user(self.request(method), presented))
            else:
                await who(self.request(method), presented)
        except Problem as problem:
            expected = 401 if problem.code == "not-authenticated" else 403
            return problem.code if problem.status == expected else f"{problem.status} {problem.code}"
        return None


@pytest.mark.parametrize(
    ("user_id", "scopes", "may"),
    [
        ("alice", ("read",), {"look"}),
        ("alice", ("jobs",), {"look", "ask", "look where it matters"}),
        ("alice", ("admin", "jobs", "users"), {"look", "ask", "look where it matters"}),  # was an admin once
        ("root", ("read",), {"look"}),
        ("root", ("jobs",), {"look", "ask", "look where it matters"}),
        ("root", ("admin", "read"), {"look", "look as an admin"}),
        ("root", ("admin", "jobs"), {"look", "ask", "look where it matters", "look as an admin", "do as an admin"}),
        ("root", ("users",), {"look", "manage users"}),
        ("root", None, {"look", "ask", "look where it matters", "look as an admin", "do as an admin", "manage users",
                        "manage keys"}),
        ("alice", None, {"look", "ask", "look where it matters", "manage keys"}),
    ],
)  # fmt: skip
async def test_a_key_is_good_for_its_scopes_and_a_token_for_everything(
    user_id: str, scopes: tuple[str, ...] | None, may: set[str]
) -> None:
    scene = Scene()
    presented = scene.token(user_id) if scopes is None else scene.key(user_id, *scopes)
    tried: dict[str, tuple[Callable[..., Any], str]] = {
        "look": (current_user, "GET"), "ask": (current_user, "POST"), "look where it matters": (asking_user, "GET"),
        "look as an admin": (admin, "GET"), "do as an admin": (admin, "POST"), "manage users": (user_admin, "PATCH"),
        "manage keys": (logged_in_user, "POST"),
    }  # fmt: skip
    found = {what for what, (who, method) in tried.items() if await scene.code(who, presented, method) is None}
    assert found == may


async def test_an_admins_key_without_the_scope_sees_what_a_user_sees() -> None:
    scene = Scene()
    assert (await scene.access.session(scene.key("root", "jobs"))).user.role == "user"
    assert (await scene.access.session(scene.key("root", "jobs", "admin"))).user.role == "admin"
    assert scene.table.values["root"].role == "admin"


async def test_a_key_dies_with_its_user_at_once_and_a_token_by_its_epoch() -> None:
    scene = Scene()
    key, token = scene.key("alice", "jobs"), scene.token()
    assert [await scene.code(current_user, each) for each in (key, token)] == [None, None]
    scene.change(user_updated(token_epoch=1))
    assert [await scene.code(current_user, each) for each in (key, token)] == [None, "not-authenticated"]
    assert await scene.code(current_user, scene.token(epoch=1)) is None
    scene.change(user_updated(token_epoch=2, disabled=True))
    for each in (key, token, scene.token(epoch=2)):
        assert await scene.code(current_user, each) == "not-authenticated"
    assert len(scene.store.asked) == 1


async def test_postgres_away_is_a_503_for_keys_that_are_not_known_and_for_nothing_else() -> None:
    scene = Scene()
    known, unknown = scene.key("alice", "jobs"), scene.key("alice", "jobs")
    assert await scene.code(current_user, known) is None
    scene.store.away = True
    assert await scene.code(current_user, known) is None
    assert await scene.code(current_user, scene.token()) is None
    with pytest.raises(Problem) as caught:
        await current_user(scene.request(), unknown)
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "2"})


def test_scopes_are_what_the_routes_know() -> None:
    assert Session(user_updated()).scopes == access.EVERYTHING


class Held:
    """Something that goes on for a session."""

    def __init__(self, scene: Scene, session: Session, stack: ExitStack) -> None:
        self.ends = 0
        stack.enter_context(scene.access.held(session, self.end))

    def end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize(
    ("change", "ends"),
    [({"disabled": True}, (1, 1)), ({"token_epoch": 1}, (1, 0)), ({"rate_limit_requests": 3}, (0, 0))],
)
async def test_what_goes_on_ends_with_the_session(change: dict[str, Any], ends: tuple[int, int]) -> None:
    scene = Scene()
    with ExitStack() as stack:
        by_token = Held(scene, await scene.access.session(scene.token()), stack)
        by_key = Held(scene, await scene.access.session(scene.key("alice", "jobs")), stack)
        anothers = Held(scene, await scene.access.session(scene.token("root")), stack)
        scene.change(user_updated(**change))
        assert (by_token.ends, by_key.ends) == ends
        assert anothers.ends == 0
    assert scene.access._held == {}


async def test_a_session_that_was_revoked_on_the_way_ends_at_once() -> None:
    scene = Scene()
    session = await scene.access.session(scene.token())
    scene.change(user_updated(token_epoch=1))
    with ExitStack() as stack:
        assert Held(scene, session, stack).ends == 1


async def test_what_goes_on_by_a_key_ends_when_the_key_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "LOOK_EVERY_S", 0.01)
    scene = Scene()
    presented = scene.key("alice", "jobs")
    scene.access.start()
    with ExitStack() as stack:
        held = Held(scene, await scene.access.session(presented), stack)
        (key_id,) = scene.store.keys
        scene.store.away = True  # nobody knows: it goes on
        scene.access.keys.forget(key_id)
        asked = len(scene.store.asked)
        await until(lambda: len(scene.store.asked) > asked + 1)
        assert held.ends == 0
        scene.store.away = False
        scene.store.keys.clear()
        await until(lambda: held.ends == 1)
    await scene.access.stop()


@pytest.mark.parametrize("by", ["token", "key"])
async def test_who_was_registered_at_another_replica_just_now_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    scene = Scene()
    presented = scene.token("bob") if by == "token" else scene.key("bob", "jobs")
    asking = asyncio.create_task(scene.code(current_user, presented))
    await asyncio.sleep(3 * access.LOOK_AGAIN_S)
    assert not asking.done()
    scene.change(user_updated(user_id="bob"))
    assert await asking is None
    # Not for ever, and not for who shows nothing that is good.
    monkeypatch.setattr(access, "BEHIND_S", 0.1)
    nobodys = scene.token("nobody") if by == "token" else scene.key("nobody", "jobs")
    assert await scene.code(current_user, nobodys) == "not-authenticated"
    monkeypatch.setattr(access, "BEHIND_S", 3600.0)
    assert await asyncio.wait_for(scene.code(current_user, nobodys[:-4] + "AAAA"), 60) == "not-authenticated"
