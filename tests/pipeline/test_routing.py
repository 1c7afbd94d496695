"""Where a job goes that names no provider, while nobody lives who could do it."""

import pytest

from tests.deployment import Deployment, client_of
from tests.pipeline.test_kill import accept, all_completed
from tests.stand_ins.openai_api import OpenAIStandIn

pytestmark = pytest.mark.integration


@pytest.fixture
def only_local(deployment: Deployment, api: OpenAIStandIn) -> dict[str, str]:
    """Two providers may be asked, of which only `local` has an address."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        del deployment.environment[name]
    return {"LOCAL_BASE_URL": api.base_url}


async def test_a_job_waits_for_the_provider_that_is_configured(
    deployment: Deployment, only_local: dict[str, str]
) -> None:
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink", **only_local)
    await deployment.ready()
    async with client_of(ingress) as client:
        job_ids = await accept(client, ["nobody has ever lived here"])
        deployment.worker("completion", **only_local)
        await all_completed(deployment, job_ids)


async def test_a_job_waits_for_the_provider_that_was_there_before_a_stop(
    deployment: Deployment, only_local: dict[str, str]
) -> None:
    """Of which the gate itself knows nothing."""
    ingress, _ = deployment.start("ingress"), deployment.worker("gate,sink")
    only_one = deployment.worker("completion", **only_local)
    await deployment.ready()
    async with client_of(ingress) as client:
        assert (await client.post("/chat/", json={"prompt": "before"})).status_code == 200
        assert await only_one.stop() == 0
        job_ids = await accept(client, ["in between"])
        deployment.worker("completion", **only_local)
        before = [str(job_id) for job_id in await deployment.finished_rows()]
        await all_completed(deployment, job_ids + before)
