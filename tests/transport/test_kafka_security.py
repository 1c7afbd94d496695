"""Settings of Kafka's security that contradict each other are refused by name, before anything is opened."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from settings import Settings

SCRAM = {
    "kafka_bootstrap_servers": "kafka.example:9093", "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "SCRAM-SHA-512", "kafka_sasl_username": "gate", "kafka_sasl_password": "the-password",
}  # fmt: skip
OAUTH = {
    "kafka_bootstrap_servers": "kafka.example:9093", "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "OAUTHBEARER", "kafka_sasl_oauth_token_url": "https://login.example/token",
    "kafka_sasl_oauth_client_id": "gate", "kafka_sasl_oauth_client_secret": "the-password",
}  # fmt: skip
TLS = {"kafka_bootstrap_servers": "kafka.example:9093", "kafka_security_protocol": "SSL"}
HERE = str(Path(__file__))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (SCRAM | {"kafka_sasl_mechanism": ""}, "KAFKA_SASL_MECHANISM is not set"),
        (SCRAM | {"kafka_sasl_username": ""}, "KAFKA_SASL_USERNAME is not set"),
        (SCRAM | {"kafka_sasl_password": ""}, "KAFKA_SASL_PASSWORD is not set"),
        (SCRAM | {"kafka_sasl_oauth_scope": "x"}, "KAFKA_SASL_OAUTH_SCOPE is set"),
        (SCRAM | {"kafka_security_protocol": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL=PLAINTEXT does not use it"),
        (SCRAM | {"kafka_security_protocol": "SSL"}, "KAFKA_SASL_MECHANISM is set"),
        (SCRAM | {"kafka_security_protocol": "SASL_PLAINTEXT"}, "KAFKA_ALLOW_PLAINTEXT_SASL"),
        (SCRAM | {"kafka_bootstrap_servers": None}, "KAFKA_BOOTSTRAP_SERVERS is not set"),
        (OAUTH | {"kafka_sasl_oauth_token_url": ""}, "KAFKA_SASL_OAUTH_TOKEN_URL is not set"),
        (OAUTH | {"kafka_sasl_oauth_client_id": ""}, "KAFKA_SASL_OAUTH_CLIENT_ID is not set"),
        (OAUTH | {"kafka_sasl_oauth_client_secret": ""}, "KAFKA_SASL_OAUTH_CLIENT_SECRET is not set"),
        (OAUTH | {"kafka_sasl_oauth_token_url": "http://login.example/"}, "must begin with https://"),
        (OAUTH | {"kafka_sasl_username": "x"}, "KAFKA_SASL_USERNAME is set"),
        (TLS | {"kafka_ssl_certfile": HERE}, "KAFKA_SSL_KEYFILE is not set"),
        (TLS | {"kafka_ssl_keyfile": HERE}, "KAFKA_SSL_CERTFILE is not set"),
        (TLS | {"kafka_ssl_key_password": "p"}, "KAFKA_SSL_KEYFILE is not set"),
        (TLS | {"kafka_ssl_cafile": "/no/such/file"}, "KAFKA_SSL_CAFILE: there is no file"),
        (TLS | {"kafka_security_protocol": "PLAINTEXT", "kafka_ssl_cafile": HERE}, "KAFKA_SSL_CAFILE is set"),
        (TLS | {"kafka_security_protocol": "TLS"}, "kafka_security_protocol"),
    ],
)
def test_a_contradiction_is_refused_and_names_the_variable(given: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, **given)  # type: ignore[arg-type]
    assert named in str(refused.value)
    assert "the-password" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        SCRAM,
        OAUTH,
        TLS | {"kafka_ssl_certfile": HERE, "kafka_ssl_keyfile": HERE, "kafka_ssl_cafile": HERE},
        SCRAM | {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_allow_plaintext_sasl": True},
        *(
            SCRAM | {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_bootstrap_servers": here}
            for here in ("localhost:9092", "127.0.0.1:9092,127.0.0.2:9092", "[::1]:9092")
        ),
        OAUTH | {"kafka_sasl_oauth_token_url": "http://127.0.0.1:8080/token"},
        {},
    ],
)
def test_what_fits_is_taken(given: dict[str, str]) -> None:
    settings = Settings(_env_file=None, **given)  # type: ignore[arg-type]
    assert settings.kafka_security.security_protocol == given.get("kafka_security_protocol", "PLAINTEXT")


def test_one_address_of_another_machine_is_enough_to_refuse_a_password_in_the_clear() -> None:
    given = SCRAM | {
        "kafka_security_protocol": "SASL_PLAINTEXT", "kafka_bootstrap_servers": "localhost:9092,127.0.0.1.example:9092",
    }  # fmt: skip
    with pytest.raises(ValidationError, match=r"127\.0\.0\.1\.example is another machine"):
        Settings(_env_file=None, **given)  # type: ignore[arg-type]
