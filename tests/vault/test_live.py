"""Environment over Vault over defaults; what changes in Vault arrives, and what is there outlives its absence."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from settings import Settings, SettingsWithoutVault
from tests.stand_ins.vault_api import VaultStandIn
from vault import store
from vault.errors import VaultAwayError, VaultStoreError
from vault.live import LiveSettings


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultStandIn]:
    monkeypatch.setattr(store, "_stores", {})
    with VaultStandIn() as vault:
        monkeypatch.setenv("VAULT_ADDR", vault.url)
        monkeypatch.setenv("VAULT_TOKEN", vault.root)
        yield vault


def secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def test_environment_over_env_file_over_vault_over_default(
    vault: VaultStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vault.put(
        OPENAI_API_KEY="of-vault", GEMINI_API_KEY="of-vault", OPENAI_MODEL="of-vault", LMSTUDIO_API_KEY="of-vault",
        ALLOWED_PROVIDERS='["openai", "gemini"]', MAX_RETRIES="5", VAULT_MOUNT="nowhere", QWEN_NEXT_BASE_URL="unknown",
    )  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
    monkeypatch.setenv("LMSTUDIO_API_KEY", "")  # as compose files hand on what nobody has set
    (tmp_path / ".env").write_text("GEMINI_API_KEY=of-the-file\nOPENAI_API_KEY=of-the-file\n")
    found = Settings(_env_file=tmp_path / ".env")
    assert secret(found.openai_api_key) == "of-the-environment"
    assert secret(found.gemini_api_key) == "of-the-file"
    assert secret(found.lmstudio_api_key) == "of-vault"
    assert (found.openai_model, found.allowed_providers, found.max_retries) == ("of-vault", ("openai", "gemini"), 5)
    assert (found.gemini_model, found.vault_mount) == ("gemini-3-flash-preview", "secret")


def test_an_empty_list_of_the_environment_is_a_value(vault: VaultStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    vault.put(FORBIDDEN_COMMANDS='["rm -rf"]')
    assert Settings(_env_file=None).forbidden_commands == ("rm -rf",)
    monkeypatch.setenv("FORBIDDEN_COMMANDS", "")
    assert Settings(_env_file=None).forbidden_commands == ()


def test_without_an_address_the_environment_is_all(monkeypatch: pytest.MonkeyPatch, vault: VaultStandIn) -> None:
    vault.put(OPENAI_API_KEY="of-vault")
    monkeypatch.setenv("VAULT_ADDR", "")
    assert Settings(_env_file=None).openai_api_key is None
    assert not vault.calls


def test_production_sends_nothing_to_a_vault_elsewhere_over_http(
    monkeypatch: pytest.MonkeyPatch, vault: VaultStandIn
) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example:8200")
    monkeypatch.setenv("PRODUCTION", "true")
    with pytest.raises(VaultStoreError, match="PRODUCTION=true refuses VAULT_ADDR over http"):
        Settings(_env_file=None)
    vault.put(OPENAI_API_KEY="of-vault")
    monkeypatch.setenv("VAULT_ADDR", vault.url)
    assert secret(Settings(_env_file=None).openai_api_key) == "of-vault"


def test_a_vault_that_gives_nothing_at_start_is_a_clear_failure(
    vault: VaultStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VaultStoreError, match="has no KV v2 secret secret/ai-assistant-api"):
        Settings(_env_file=None)
    vault.sealed = True
    with pytest.raises(VaultAwayError):
        Settings(_env_file=None)
    monkeypatch.setenv("VAULT_TOKEN", "")
    with pytest.raises(VaultStoreError, match="none of VAULT_TOKEN"):
        Settings(_env_file=None)
    assert SettingsWithoutVault(_env_file=None).openai_api_key is None


async def test_what_changes_is_handed_on_and_what_the_environment_has_stays(
    vault: VaultStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_RETRIES", "7")
    vault.put(OPENAI_API_KEY="key-1", MAX_RETRIES="1")
    live = LiveSettings(Settings(_env_file=None))
    seen: list[Settings] = []
    live.subscribe(seen.append)
    await live.refresh()
    assert seen == []
    vault.put(OPENAI_API_KEY="key-2", MAX_RETRIES="2")
    await live.refresh()
    await live.refresh()
    (new,) = seen
    assert (secret(new.openai_api_key), new.max_retries) == ("key-2", 7)
    assert live.current is new
    vault.put()  # gone there: its default
    await live.refresh()
    assert live.current.openai_api_key is None


async def test_away_later_the_last_values_hold_and_it_is_told_once(
    vault: VaultStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    vault.put(OPENAI_API_KEY="key-1")
    live = LiveSettings(Settings(_env_file=None))
    vault.sealed = True
    with caplog.at_level(logging.WARNING):
        await live.refresh()
        await live.refresh()
    assert live.problem is not None
    assert "sealed" in live.problem
    assert "the last values hold" in live.problem
    assert secret(live.current.openai_api_key) == "key-1"
    assert len([record for record in caplog.records if "sealed" in record.getMessage()]) == 1
    vault.sealed = False
    await live.refresh()
    assert live.problem is None


@pytest.mark.parametrize("wrong", [{"MAX_RETRIES": "many"}, {"OPENAI_API_KEY": "two words"}])
async def test_a_value_that_does_not_fit_is_named_without_it_and_the_last_ones_hold(
    vault: VaultStandIn, wrong: dict[str, str]
) -> None:
    vault.put(OPENAI_API_KEY="key-1")
    live = LiveSettings(Settings(_env_file=None))
    seen: list[Settings] = []
    live.subscribe(seen.append)
    vault.put(**wrong)
    await live.refresh()
    await live.refresh()
    ((name, value),) = wrong.items()
    assert live.problem is not None
    assert name in live.problem
    assert value not in live.problem
    assert not seen
    assert secret(live.current.openai_api_key) == "key-1"
    vault.put(OPENAI_API_KEY="key-2")
    await live.refresh()
    assert not live.problem
    assert secret(live.current.openai_api_key) == "key-2"


async def test_a_subscriber_that_cannot_use_a_value_keeps_what_it_has_and_others_get_it(vault: VaultStandIn) -> None:
    vault.put(INSTRUCTION_REGEX="a+")
    live = LiveSettings(Settings(_env_file=None))
    seen: list[Settings] = []

    def refuse(new: Settings) -> None:
        raise ValueError("INSTRUCTION_REGEX is not a regular expression")

    live.subscribe(refuse)
    live.subscribe(seen.append)
    vault.put(INSTRUCTION_REGEX="a(")
    await live.refresh()
    await live.refresh()
    assert live.problem is not None
    assert "INSTRUCTION_REGEX" in live.problem
    assert len(seen) == 1


async def test_without_vault_nothing_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    live = LiveSettings(Settings(_env_file=None))
    await live.run()
    assert live.problem is None
