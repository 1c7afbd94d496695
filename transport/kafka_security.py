"""How Kafka is told who we are, and how we know that it is Kafka: the usual settings, and what contradicts itself.

Imports nothing of Kafka: the settings are read with it by commands that never speak to a broker.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class KafkaSecurityError(ValueError):
    """These settings cannot be used together, or a file of theirs cannot be read; the message names the variable."""


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """The values of `KAFKA_SECURITY_PROTOCOL` and its kin; each field is the setting without `KAFKA_`."""

    security_protocol: Protocol = "PLAINTEXT"
    sasl_mechanism: Mechanism | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_oauth_token_url: str | None = None
    sasl_oauth_client_id: str | None = None
    sasl_oauth_client_secret: str | None = field(default=None, repr=False)
    sasl_oauth_scope: str | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_key_password: str | None = field(default=None, repr=False)

    @property
    def has_sasl(self) -> bool:
        """It logs in with a user or a token."""
        return self.security_protocol.startswith("SASL")

    @property
    def has_tls(self) -> bool:
        """What it says is read by nobody on the way."""
        return self.security_protocol.endswith("SSL")

    @property
    def principal(self) -> str:
        """Who the brokers take us for, as far as that can be told from here."""
        if self.has_sasl:
            return self.sasl_username or self.sasl_oauth_client_id or "the token's subject"
        return "the certificate's subject" if self.ssl_certfile else "ANONYMOUS"

    def check(self, bootstrap_servers: str | None, *, allow_plaintext_sasl: bool) -> None:
        """Refuse what contradicts itself.

        Args:
            bootstrap_servers: `host:port`, several with commas; None: the embedded broker.
            allow_plaintext_sasl: A password, or what proves one, may cross a network that others can read.

        Raises:
            KafkaSecurityError: Names the variable.
        """
        if bootstrap_servers is None and self.security_protocol != "PLAINTEXT":
            raise KafkaSecurityError(
                f"KAFKA_SECURITY_PROTOCOL is {self.security_protocol}, but KAFKA_BOOTSTRAP_SERVERS is not set: the "
                "broker that is started here speaks PLAINTEXT"
            )
        for problem in (*self._sasl(), *self._tls()):
            raise KafkaSecurityError(problem)
        if self.security_protocol == "SASL_PLAINTEXT" and not allow_plaintext_sasl:
            foreign = [host for host in hosts(bootstrap_servers or "") if not is_loopback(host)]
            if foreign:
                raise KafkaSecurityError(
                    f"KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT, and {foreign[0]} is another machine: whoever is "
                    "on the way could read the password; set it to SASL_SSL, or KAFKA_ALLOW_PLAINTEXT_SASL=true on a "
                    "network that is yours alone"
                )

    def _sasl(self) -> Iterator[str]:
        given = [name for name in self._names("sasl_") if getattr(self, name) is not None]
        if not self.has_sasl:
            if given:
                yield self._unused(given[0], "SASL_SSL")
            return
        if self.sasl_mechanism is None:
            yield (
                f"KAFKA_SASL_MECHANISM is not set: {self.security_protocol} needs one of PLAIN, SCRAM-SHA-256, "
                "SCRAM-SHA-512, OAUTHBEARER"
            )
            return
        is_oauth = self.sasl_mechanism == "OAUTHBEARER"
        needed = (
            ("sasl_oauth_token_url", "sasl_oauth_client_id", "sasl_oauth_client_secret")
            if is_oauth
            else ("sasl_username", "sasl_password")
        )
        for name in needed:
            if not getattr(self, name):
                yield f"KAFKA_{name.upper()} is not set: {self.sasl_mechanism} needs it"
        for name in given:
            if name != "sasl_mechanism" and name.startswith("sasl_oauth_") != is_oauth:
                yield f"KAFKA_{name.upper()} is set, and KAFKA_SASL_MECHANISM={self.sasl_mechanism} does not use it"
        if is_oauth and not _is_safe_url(self.sasl_oauth_token_url or ""):
            yield "KAFKA_SASL_OAUTH_TOKEN_URL must begin with https:// (http:// to this machine only): it gets a secret"

    def _tls(self) -> Iterator[str]:
        given = [name for name in self._names("ssl_") if getattr(self, name) is not None]
        if not self.has_tls:
            if given:
                yield self._unused(given[0], "SASL_SSL" if self.has_sasl else "SSL")
            return
        if self.ssl_certfile and not self.ssl_keyfile:
            yield "KAFKA_SSL_KEYFILE is not set: the certificate of KAFKA_SSL_CERTFILE needs its key"
        if self.ssl_keyfile and not self.ssl_certfile:
            yield "KAFKA_SSL_CERTFILE is not set: the key of KAFKA_SSL_KEYFILE belongs to a certificate"
        if self.ssl_key_password and not self.ssl_keyfile:
            yield "KAFKA_SSL_KEYFILE is not set: KAFKA_SSL_KEY_PASSWORD is the password of a key"
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path: Path | None = getattr(self, name)
            if path is not None and not path.is_file():
                yield f"KAFKA_{name.upper()}: there is no file {path}"

    def _unused(self, name: str, wanted: str) -> str:
        return (
            f"KAFKA_{name.upper()} is set, and KAFKA_SECURITY_PROTOCOL={self.security_protocol} does not use it: set "
            f"KAFKA_SECURITY_PROTOCOL={wanted}, or take it out"
        )

    @staticmethod
    def _names(prefix: str) -> list[str]:
        return [known.name for known in fields(KafkaSecurity) if known.name.startswith(prefix)]


def hosts(bootstrap_servers: str) -> list[str]:
    """Those of `host:port,...`, without brackets."""
    names = [address.strip().rpartition(":")[0] or address.strip() for address in bootstrap_servers.split(",")]
    return [name.strip("[]") for name in names if name]


def is_loopback(host: str) -> bool:
    """True of names and addresses of this machine only."""
    if host.lower() in ("localhost", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_safe_url(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )
