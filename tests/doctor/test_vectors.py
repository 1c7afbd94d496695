"""What the doctor says of vectors and of the embedding model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from doctor.services import embeddings, vectors
from embedded.addresses import Addresses
from embedded.home import Home, PartState, Status
from embedded.ports import free_port
from embedded.running import Running
from embedded.services import start_vectors
from settings import Settings

NOTHING = Addresses(None, None, None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start_vectors(tmp_path_factory.mktemp("vectors"), api_key="the-key")
    yield running
    running.stop()


def settings(home: Path, **given: Any) -> Settings:
    return Settings(_env_file=None, assistant_home=home, **given)


async def test_what_is_set_is_asked_with_its_key(server: Running, tmp_path: Path) -> None:
    (good,) = await vectors(settings(tmp_path, qdrant_url=server.url, qdrant_api_key=SecretStr("the-key")), NOTHING)
    assert (good.state, good.found) == ("ok", server.url)
    (wrong,) = await vectors(settings(tmp_path, qdrant_url=server.url, qdrant_api_key=SecretStr("another")), NOTHING)
    assert (wrong.state, "QDRANT_API_KEY" in wrong.advice) == ("wrong", True)
    (open_to_all,) = await vectors(settings(tmp_path, qdrant_url=server.url, production=True), NOTHING)
    assert (open_to_all.state, "QDRANT_API_KEY" in open_to_all.advice) == ("wrong", True)
    (away,) = await vectors(settings(tmp_path, qdrant_url=f"http://127.0.0.1:{free_port()}"), NOTHING)
    assert (away.state, "QDRANT_URL" in away.advice) == ("wrong", True)
    assert "the-key" not in repr([good, wrong, away])


async def test_what_runs_here_is_asked_with_the_homes_key(server: Running, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    (home.secrets / "qdrant_api_key").write_text("the-key")
    running = Status(1, 1.0, parts=[PartState("vectors", http=server.url)])
    (found,) = await vectors(settings(tmp_path), Addresses(None, None, running))
    assert found.state == "ok"
    (nothing,) = await vectors(settings(tmp_path), NOTHING)
    assert nothing.state == "absent"


async def test_the_embedding_model_is_asked_where_local_is_allowed(tmp_path: Path) -> None:
    (away,) = await embeddings(settings(tmp_path, local_embedding_url=f"http://127.0.0.1:{free_port()}/v1"), NOTHING)
    assert (away.part, away.state) == ("embeddings", "wrong")
    (absent,) = await embeddings(settings(tmp_path), NOTHING)
    assert absent.state == "absent"
    assert await embeddings(settings(tmp_path, allowed_providers=("openai",)), NOTHING) == []
