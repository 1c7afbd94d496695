"""What every Kafka client of ours is opened with; a test looks after it that none is opened by other means."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from transport import (
    closed_connections,
    fetcher_end,
    lasting_batches,
    oauth_answers,
    refusals,
    tolerant_records,
)
from transport.kafka_security import KafkaSecurity, KafkaSecurityError, hosts, is_loopback
from transport.oauth import ClientCredentials

tolerant_records.install()
closed_connections.install()
fetcher_end.install()
lasting_batches.install()
oauth_answers.install()
refusals.install()


@dataclass(frozen=True)
class KafkaAccess:
    """Where the cluster is, and how it is spoken to. `bootstrap_servers`: `host:port`, several with commas.

    Raises:
        KafkaSecurityError: A file of `security` cannot be read; names its variable.
    """

    bootstrap_servers: str
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    _security_options: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once: to load the authorities takes 36 ms, and all clients are to share one token.
        object.__setattr__(self, "_security_options", security_options(self.security))

    def options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client."""
        return {"bootstrap_servers": self.bootstrap_servers, "request_timeout_ms": 20_000, **self._security_options}

    def faust_broker(self) -> list[str]:
        """The same as Faust wants it; its credentials are those of `streams.credentials`."""
        return [f"kafka://{address.strip()}" for address in self.bootstrap_servers.split(",")]

    @property
    def refusal(self) -> str | None:
        """Why the brokers refuse us, with what to do; None while they do not."""
        return refusals.refusal(self._security_options)

    def unreachable(self, error: BaseException) -> str:
        """A sentence on a call that failed: a refusal with what to do, anything else in its own words."""
        if told := self.refusal:
            return told
        told = f"Kafka at {self.bootstrap_servers}: {str(error) or type(error).__name__}"
        is_plain = self.security.security_protocol == "PLAINTEXT"
        if is_plain and not all(is_loopback(host) for host in hosts(self.bootstrap_servers)):
            told += "; brokers that want TLS or SASL need KAFKA_SECURITY_PROTOCOL"
        return told


def security_options(security: KafkaSecurity) -> dict[str, Any]:
    """What a client takes beside its address; empty for PLAINTEXT.

    Raises:
        KafkaSecurityError: A file cannot be read; names its variable.
    """
    if security.security_protocol == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security_protocol": security.security_protocol}
    if security.has_tls:
        options["ssl_context"] = _context(security)
    if security.has_sasl:
        options["sasl_mechanism"] = security.sasl_mechanism
        if security.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = ClientCredentials(
                security.sasl_oauth_token_url or "", client_id=security.sasl_oauth_client_id or "",
                client_secret=security.sasl_oauth_client_secret or "", scope=security.sasl_oauth_scope,
            )  # fmt: skip
        else:
            options["sasl_plain_username"] = security.sasl_username
            options["sasl_plain_password"] = security.sasl_password
    return options


def _context(security: KafkaSecurity) -> ssl.SSLContext:
    """Verifies the broker's certificate and name, always."""
    try:
        context = ssl.create_default_context(cafile=security.ssl_cafile)
    except (OSError, ssl.SSLError):
        raise KafkaSecurityError(f"KAFKA_SSL_CAFILE: {security.ssl_cafile} holds no certificate in PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if security.ssl_certfile and security.ssl_keyfile:
        # Without a password OpenSSL would ask for one at the terminal.
        password = security.ssl_key_password or ""
        try:
            context.load_cert_chain(security.ssl_certfile, security.ssl_keyfile, password=lambda: password)
        except (OSError, ssl.SSLError, ValueError):
            raise KafkaSecurityError(
                f"KAFKA_SSL_CERTFILE {security.ssl_certfile} and KAFKA_SSL_KEYFILE {security.ssl_keyfile} cannot be "
                "used: both must be PEM and belong together, and KAFKA_SSL_KEY_PASSWORD be the key's, if it has one"
            ) from None
    return context
