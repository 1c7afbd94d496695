from starlette.types import Receive, Scope, Send

from ingress.http.middleware import Edge
from ingress.limits import DEFAULT_LISTENERS, Limits
from tests.factories import user_updated
from tests.ingress.http.test_middleware import call


def test_a_page_holds_no_more_than_the_setting_says() -> None:
    assert [Limits(max_page=10).page(limit) for limit in (1, 10, 100)] == [1, 10, 10]


def test_listeners_are_bounded_for_users_and_for_admins_where_it_is_set() -> None:
    root = user_updated(user_id="root", role="admin")
    assert (Limits().listeners_of(user_updated()), Limits().listeners_of(root)) == (DEFAULT_LISTENERS, None)
    assert (Limits(max_listeners=3).listeners_of(user_updated()), Limits(max_listeners=3).listeners_of(root)) == (3, 3)


async def test_how_many_requests_are_under_way_is_the_settings_to_say() -> None:
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/chat/":
            seen.append(await call(edge, "/other"))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    for most, status in ((1, 503), (2, 200)):
        edge = Edge(app, max_body_bytes=10, max_under_way=most)
        assert await call(edge) == 200
        assert seen.pop() == status
