"""A refusal is told in words that say what to do, until the brokers take us again; an outage is none."""

import ssl
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

from settings import Settings
from streams.worker import Worker
from transport import refusals
from transport.clients import KafkaAccess
from transport.kafka_security import KafkaSecurity
from transport.oauth import TokenRefusedError

SCRAM = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "gate"}
OAUTH = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}


def unverified(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "no")
    error.verify_code, error.verify_message = code, "some reason"
    return error


def alert() -> KafkaConnectionError:
    cause = ssl.SSLError(1, "alert")
    cause.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    error = KafkaConnectionError("closed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "options", "told"),
    [
        (SaslAuthenticationFailed("x"), SCRAM, "refuses the user 'gate': set KAFKA_SASL_USERNAME and KAFKA_SASL_PASS"),
        (SaslAuthenticationFailed("x"), OAUTH, "refuses the token that KAFKA_SASL_OAUTH_TOKEN_URL gave"),
        (TokenRefusedError("no token"), OAUTH, "no token"),
        (
            UnsupportedSaslMechanismError("Kafka ... Enabled mechanisms are: ['PLAIN']"), SCRAM,
            "does not take KAFKA_SASL_MECHANISM=SCRAM-SHA-512: it takes ['PLAIN']",
        ),
        (unverified(10), SCRAM, "has expired"),
        (unverified(9), SCRAM, "not valid yet"),
        (unverified(19), SCRAM, "set KAFKA_SSL_CAFILE"),
        (unverified(20), SCRAM, "set KAFKA_SSL_CAFILE"),
        (unverified(62), SCRAM, "its certificate is not for broker"),
        (unverified(23), SCRAM, "does not verify (some reason)"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), SCRAM, "does not speak TLS"),
        (alert(), {"security_protocol": "SSL"}, "refuses our certificate (tlsv13 alert certificate required)"),
        (KafkaConnectionError("closed"), SCRAM, None),
        (ConnectionRefusedError(), SCRAM, None),
        (TimeoutError(), SCRAM, None),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do_and_an_outage_is_none(
    error: Exception, options: dict[str, Any], told: str | None
) -> None:
    found = refusals.why(error, "broker:9093", options)
    assert (found is None) == (told is None)
    assert (told or "") in (found or "")


async def test_a_refusal_stands_until_that_broker_takes_us_and_is_in_readiness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Exception | None] = [SaslAuthenticationFailed("x"), ConnectionRefusedError(), None]

    async def connect(host: str, port: int, **options: Any) -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "a connection"

    monkeypatch.setattr(refusals, "_create", connect)
    monkeypatch.setattr(refusals, "_refusals", {})
    settings = Settings(
        _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN", kafka_sasl_username="gate", kafka_sasl_password="p",
    )  # fmt: skip
    worker = Worker(settings, ["sink"])
    other = KafkaAccess("127.0.0.1:1", KafkaSecurity("SASL_PLAINTEXT", "PLAIN", "another", "p"))
    options = worker._access.options()
    del options["bootstrap_servers"], options["request_timeout_ms"]
    for _ in range(2):  # an outage after it says nothing new
        with pytest.raises((SaslAuthenticationFailed, ConnectionRefusedError)):
            await refusals._noted("127.0.0.1", 1, **options)
        assert "refuses the user 'gate'" in (worker._access.refusal or "")
    assert other.refusal is None
    await refusals._noted("127.0.0.1", 1, **options)
    assert worker._access.refusal is None
