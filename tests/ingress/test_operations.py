"""Docs and metrics, open or for admins only."""

from collections.abc import AsyncIterator

import httpx
import pytest

from ingress.app import create_app
from settings import Settings
from tests.conftest import SECRET
from tests.factories import user_updated
from transport.table import CompactedTable

GUARDED = ("/docs", "/openapi.json", "/metrics")
ALWAYS_OPEN = {"/auth/login", "/health", "/livez", "/readyz"}


@pytest.fixture
async def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Of an ingress with `public_docs` and `public_metrics` as the parameter has them, not started."""
    app = create_app(
        Settings(
            _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
            jwt_secret_key=SECRET, public_docs=request.param, public_metrics=request.param,
        )
    )  # fmt: skip
    made = app.state.services
    monkeypatch.setattr(CompactedTable, "is_running", True)
    made.user_table.values = {
        name: user_updated(user_id=name, role=role) for name, role in (("root", "admin"), ("alice", "user"))
    }
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client
    await made.database.close()


def bearer(client: httpx.AsyncClient, user_id: str) -> dict[str, str]:
    made = client._transport.app.state.services  # type: ignore[attr-defined]  # of the ASGI transport
    return {"authorization": f"Bearer {made.tokens.issue(user_id, role='whatever', epoch=0)}"}


@pytest.mark.parametrize("client", [False], indirect=True)
@pytest.mark.parametrize("path", GUARDED)
async def test_where_they_are_not_public_only_an_admin_sees_them(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 401
    assert (await client.get(path, headers={"authorization": "Basic cm9vdDp4"})).status_code == 401
    assert (await client.get(path, headers=bearer(client, "alice"))).status_code == 403
    assert (await client.get(path, headers=bearer(client, "root"))).status_code == 200


@pytest.mark.parametrize("client", [True], indirect=True)
@pytest.mark.parametrize("path", GUARDED)
async def test_where_they_are_public_anybody_does(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("client", [False], indirect=True)
async def test_closed_to_the_outside_nothing_but_login_and_health_answers(client: httpx.AsyncClient) -> None:
    app = client._transport.app  # type: ignore[attr-defined]  # as above
    paths = {path: methods for path, methods in app.openapi()["paths"].items() if path not in ALWAYS_OPEN}
    assert len(paths) > 8
    for path, methods in {**paths, "/docs": ["get"], "/openapi.json": ["get"]}.items():
        for method in methods:
            reply = await client.request(method, path.replace("{job_id}", "7"))
            assert reply.status_code == 401, path
