"""LiteLLM's proxy in front of the stand-in: `docs.litellm.ai/docs/proxy`, without a database."""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from bench.peers.running import BIN, answers, start
from bench.place import Place
from embedded.ports import free_port
from tests.deployment import plain_client


@asynccontextmanager
async def litellm_proxy(place: Place) -> AsyncIterator[tuple[str, str]]:
    """Its base URL and the key that it asks for; gone afterwards."""
    key = f"sk-{secrets.token_hex(32)}"
    port, config = free_port(), place.home / "litellm.yaml"
    parameters = {"model": "openai/m", "api_base": place.api_url, "api_key": "stub", "max_retries": 0}
    settings = {
        "model_list": [{"model_name": "m", "litellm_params": parameters}], "general_settings": {"master_key": key},
    }  # fmt: skip
    config.write_text(json.dumps(settings))  # JSON is YAML, too
    log = place.home / "litellm.log"
    with ExitStack() as stack:
        command = [str(BIN / "litellm"), "--config", str(config), "--port", str(port), "--num_workers", "1"]
        start(stack, log, command, {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1"})
        async with plain_client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            await answers(client, "/health/liveliness", log)
        yield f"http://127.0.0.1:{port}", key
