import logging
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from settings import Settings

ROOT = Path(__file__).parent.parent
STRONG = "Zq3v9KxT1mB7rWn5cJ2hYs8dLf4gPa6e0uXoIiEt"


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def test_the_example_names_exactly_the_settings_that_there_are() -> None:
    named = re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("environment", "dsn"),
    [
        ({"DATABASE_URL": "postgresql://u:p@h:1/d"}, "postgresql://u:p@h:1/d"),
        ({"DATABASE_URL": "postgresql+asyncpg://u:p@h/d"}, "postgresql://u:p@h/d"),
        ({"DB_HOST": "h:5", "DB_USER": "u", "DB_PASS": "p/@", "DB_NAME": "d"}, "postgresql://u:p%2F%40@h:5/d"),
        ({}, None),
        ({"DATABASE_URL": ""}, None),
    ],
)
def test_the_database_is_named_in_any_of_its_ways(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], dsn: str | None
) -> None:
    assert settings(monkeypatch, **environment).postgres_dsn == dsn


def test_another_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL must look like"):
        _ = settings(monkeypatch, DATABASE_URL="mysql://h/d").postgres_dsn


@pytest.mark.parametrize("name", ["JWT_SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS"])
@pytest.mark.parametrize(
    "secret",
    [
        "", "short", STRONG[:31], "a" * 64, "changeme" * 8, " " * 40,
        '["list", "' + STRONG + '"]', "-----BEGIN" + STRONG,
        '{"keys": "' + STRONG + '"}', '"' + STRONG + '"', "1234567890" * 4, "-1.2345678901234567890123456789e99",
    ],
)  # fmt: skip
def test_a_weak_secret_is_refused_with_the_command_that_makes_a_good_one(
    monkeypatch: pytest.MonkeyPatch, secret: str, name: str
) -> None:
    if name == "JWT_SECRET_KEY_PREVIOUS" and secret == "":
        assert settings(monkeypatch, **{name: secret}).jwt_secret_key_previous is None  # there need not be one
        return
    with pytest.raises(ValidationError, match="openssl rand") as caught:
        settings(monkeypatch, **{name: secret})
    assert not secret or secret not in str(caught.value)


def test_lists_come_as_json_or_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, ALLOWED_PROVIDERS='["openai"]').allowed_providers == ("openai",)
    assert settings(monkeypatch, ALLOWED_PROVIDERS="openai, local").allowed_providers == ("openai", "local")


def test_a_setting_of_another_product_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        settings(monkeypatch, REDIS_HOST="x", JWT_SECRET_KEY=STRONG)
    assert "REDIS_HOST" in caplog.text


def test_a_setting_of_another_product_in_the_file_is_warned_of_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://:secret@x\nINGRESS_PORT=8001\n")
    with caplog.at_level(logging.WARNING):
        assert Settings(_env_file=tmp_path / ".env").ingress_port == 8001
    assert [record.getMessage() for record in caplog.records] == [
        "these settings mean nothing here and are ignored: REDIS_URL"
    ]


@pytest.mark.parametrize(
    "wrong", [{"INGRESS_PORT": "99999"}, {"LLM_TIMEOUT": "0"}, {"SESSION_TIMEOUT_S": "1"}, {"ALLOWED_PROVIDERS": "[1"}]
)
def test_a_value_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(monkeypatch, **wrong)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "GEMINI_API_KEY", "LMSTUDIO_API_KEY"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_told(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for wrong in ("sk-secret\nx", "sk-secret x", "sk-sécret"):
        with pytest.raises(ValidationError, match="printable ASCII") as caught:
            settings(monkeypatch, **{name: wrong})
        assert wrong not in str(caught.value)
    found = getattr(settings(monkeypatch, **{name: " sk-good\n"}), name.lower())
    assert found.get_secret_value() == "sk-good"
    assert getattr(settings(monkeypatch, **{name: ""}), name.lower()) is None


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "GEMINI_BASE_URL", "OLLAMA_BASE_URL", "LMSTUDIO_BASE_URL",
                                  "QWEN3_VL_BASE_URL", "LOCAL_BASE_URL"])  # fmt: skip
def test_an_address_says_how_it_is_spoken_to(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ValidationError, match="must begin with http"):
        settings(monkeypatch, **{name: "127.0.0.1:11434"})
    settings(monkeypatch, **{name: "http://127.0.0.1:11434"})


def test_prices_are_json_and_what_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given = '{"openai/gpt-4o-mini": {"input": 0.15, "output": 0.6}}'
    found = settings(monkeypatch, PRICES_PER_MILLION_TOKENS=given).prices_per_million_tokens
    assert found == {"openai/gpt-4o-mini": {"input": 0.15, "output": 0.6}}
    assert settings(monkeypatch, PRICES_PER_MILLION_TOKENS="").prices_per_million_tokens == {}
    for wrong in ('{"a": {"inputs": 1}}', '{"a": {"input": -1}}', '{"a": {"input": NaN}}', "{", "[1]"):
        with pytest.raises(ValidationError):
            settings(monkeypatch, PRICES_PER_MILLION_TOKENS=wrong)


def test_limits_by_provider_are_json_and_name_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(monkeypatch, PROVIDER_CONCURRENCY='{"openai": 5}', PROVIDER_REQUESTS_PER_MINUTE="")
    assert (given.provider_concurrency, given.provider_requests_per_minute) == ({"openai": 5}, {})
    for wrong in ('{"opnai": 5}', '{"openai": 0}', '["openai"]', "{"):
        with pytest.raises(ValueError, match="provider_concurrency"):
            settings(monkeypatch, PROVIDER_CONCURRENCY=wrong)


def test_fall_overs_are_switched_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(settings(monkeypatch).fallover_on) == 6
    assert settings(monkeypatch, FALLOVER_ON='["timeout"]').fallover_on == ("timeout",)
    assert settings(monkeypatch, FALLOVER_ON="[]").fallover_on == ()
    with pytest.raises(ValidationError):
        settings(monkeypatch, FALLOVER_ON="timeouts")


def test_hosts_that_may_be_called_are_names_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch, EGRESS_ALLOWED_HOSTS="Hooks.Exämple., 10.0.0.1, [fd00::1]", EGRESS_ALLOWED_PORTS="8443"
    )
    assert found.egress_allowed_hosts == ("hooks.xn--exmple-cua", "10.0.0.1", "fd00::1")
    assert found.egress_allowed_ports == (8443,)
    for wrong in ("https://x.example", "*.example", "x.example/path", "a b"):
        with pytest.raises(ValidationError, match="names or addresses"):
            settings(monkeypatch, EGRESS_ALLOWED_HOSTS=f'["{wrong}"]')
    with pytest.raises(ValidationError):
        settings(monkeypatch, EGRESS_ALLOWED_PORTS="0")
