from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import KafkaForTests
from tests.deployment import Deployment
from tests.stand_ins.openai_api import OpenAIStandIn


@pytest.fixture
async def api() -> AsyncIterator[OpenAIStandIn]:
    async with OpenAIStandIn() as api:
        yield api


@pytest.fixture
async def deployment(
    kafka: KafkaForTests, database: str, topic_prefix: str, tmp_path: Path, api: OpenAIStandIn
) -> AsyncIterator[Deployment]:
    """Set up, nothing started."""
    environment = {
        "ALLOWED_PROVIDERS": '["openai", "local"]', "OPENAI_API_KEY": "stand-in", "OPENAI_BASE_URL": api.base_url,
    }  # fmt: skip
    deployment = Deployment(kafka, database, topic_prefix, tmp_path, environment)
    done = deployment.run("setup", "--partitions", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    yield deployment
    deployment.close()
