from collections.abc import AsyncIterator

import pytest

from ingress.comparisons import comparing
from tests.ingress.channel_scene import close_all
from tests.ingress.comparing_scene import Pipeline, Scene
from tests.ingress.desk import Desk


@pytest.fixture
async def scene(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(comparing, "MAX_LOOK_S", 0.1)
    monkeypatch.setattr(comparing, "LOOK_FOR_NEW_EVERY_S", 0.1)
    monkeypatch.setattr(comparing, "LEASE_S", 1.0)
    monkeypatch.setattr(comparing, "RENEW_EVERY_S", 0.2)
    scene = Scene(database, Pipeline(database))
    yield scene
    await scene.client.aclose()
    await scene.comparing.stop()
    await scene.pool.close()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


@pytest.fixture(autouse=True)
async def replicas_closed() -> AsyncIterator[None]:
    """In the loop that they were made in: nothing of one test is left for the next."""
    yield
    await close_all()
