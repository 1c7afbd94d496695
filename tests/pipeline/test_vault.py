"""Secrets from Vault reach processes that run: a new key, new rules, and an outage that nobody notices."""

from typing import Any

import httpx
import pytest

from tests.deployment import Deployment, client_of, plain_client
from tests.stand_ins.openai_api import OpenAIStandIn
from tests.stand_ins.vault_api import ROLE_ID, SECRET_ID, VaultStandIn
from tests.waiting import until

pytestmark = pytest.mark.integration


def by_role(vault: VaultStandIn) -> dict[str, str]:
    return {
        "VAULT_ADDR": vault.url, "VAULT_ROLE_ID": ROLE_ID, "VAULT_SECRET_ID": SECRET_ID, "VAULT_REFRESH_S": "1",
        "OPENAI_API_KEY": "",
    }  # fmt: skip


async def readiness(address: str) -> tuple[int, dict[str, Any]]:
    async with plain_client(timeout=5) as client:
        reply = await client.get(f"{address}/readyz")
        return reply.status_code, reply.json()


async def test_a_new_key_and_new_rules_hold_without_a_restart_and_an_outage_is_a_warning(
    deployment: Deployment, api: OpenAIStandIn
) -> None:
    with VaultStandIn() as vault:
        vault.put(OPENAI_API_KEY="key-1", FORBIDDEN_COMMANDS='["first phrase"]')
        ingress = deployment.start("ingress", **by_role(vault))
        worker = deployment.worker("gate,completion,sink", **by_role(vault))
        await deployment.ready()
        async with client_of(ingress) as client:
            assert await answer(client, "Say the second phrase") == "Answer to: Say the second phrase"
            assert api.last[1] == "Bearer key-1"
            vault.put(OPENAI_API_KEY="key-2", FORBIDDEN_COMMANDS='["second phrase"]')

            async def refused() -> bool:
                return await answer(client, "Say the second phrase") is None

            await until(refused)
            assert await answer(client, "Say the first phrase") == "Answer to: Say the first phrase"

            async def called_with_the_new_one() -> bool:
                await answer(client, "Who calls?")
                return api.last[1] == "Bearer key-2"

            await until(called_with_the_new_one)
            vault.sealed = True
            for process in (ingress, worker):

                async def warned(address: str = process.http) -> bool:
                    status, body = await readiness(address)
                    assert status == 200
                    return "the last values hold" in body["warnings"].get("vault", "")

                await until(warned)
            assert await answer(client, "And now?") == "Answer to: And now?"
            vault.sealed = False

            async def well() -> bool:
                return "vault" not in (await readiness(worker.http))[1]["warnings"]

            await until(well)
        log = worker.log.read_text()
        assert log.count("is sealed") == 1
        assert not [secret for secret in ("key-1", "key-2", SECRET_ID) if secret in log + ingress.log.read_text()]


async def answer(client: httpx.AsyncClient, prompt: str) -> str | None:
    """None for a refusal."""
    body = (await client.post("/chat/", json={"prompt": prompt})).json()
    if body.get("status") == "refused":
        return None
    text: str = body["result"]["text"]
    return text


@pytest.mark.parametrize("words", [("worker", "--roles", "completion"), ("ingress",), ("setup",)])
async def test_a_vault_that_is_away_at_start_ends_it_with_a_sentence(
    deployment: Deployment, words: tuple[str, ...]
) -> None:
    away = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "the-token"}
    ended = deployment.run(*words, **away)
    assert ended.returncode == 2
    assert ended.stderr.strip() == "Vault at http://127.0.0.1:1 (VAULT_ADDR) does not answer (ConnectionError)"


async def test_doctor_says_where_each_setting_comes_from_and_no_value(deployment: Deployment) -> None:
    import json

    with VaultStandIn() as vault:
        vault.put(OPENAI_API_KEY="of-vault", MAX_RETRIES="7")
        given = by_role(vault) | {"GEMINI_API_KEY": "of-the-environment"}
        told = deployment.run("doctor", "--json", **given).stdout
        report = json.loads(told)
        sources = {origin["name"]: origin["source"] for origin in report["settings"]}
        # MAX_RETRIES is in the environment of this deployment, which wins.
        assert (sources["OPENAI_API_KEY"], sources["MAX_RETRIES"]) == ("Vault", "environment")
        assert (sources["GEMINI_API_KEY"], sources["OPENAI_MODEL"]) == ("environment", "default")
        assert not [value for value in ("of-vault", "of-the-environment", SECRET_ID) if value in told]
        (finding,) = [found for found in report["findings"] if found["part"] == "vault"]
        assert finding["state"] == "ok"
        vault.sealed = True
        report = json.loads(deployment.run("doctor", "--json", **given).stdout)
        (finding,) = [found for found in report["findings"] if found["part"] == "vault"]
        assert finding["state"] == "wrong"
        assert "unseal it" in finding["advice"]
