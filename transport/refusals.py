"""Why brokers refuse us, in words that say what to do.

aiokafka 0.14 logs a refused password or certificate, and then says "unable to bootstrap", as if nobody were there: it
tries again for ever, and so would we. Here the last refusal of each broker is kept until it takes us again.
"""

import ssl
from typing import Any

import aiokafka.client
from aiokafka.errors import SaslAuthenticationFailed, UnsupportedSaslMechanismError

from transport.oauth import TokenRefusedError

Identity = tuple[str, str | None, str | None, int]  # protocol, mechanism, user, and the TLS context's own id
_create = aiokafka.client.create_conn
_refusals: dict[Identity, dict[str, str]] = {}

UNKNOWN_AUTHORITY = {2, 18, 19, 20, 21, 27}  # X509_V_ERR_*: no issuer found, self-signed, not trusted
EXPIRED, NOT_YET_VALID, OTHER_NAME = 10, 9, {62, 64}
ALERTS = ("alert", "certificate required", "bad certificate", "unknown ca")


def install() -> None:
    """For every client of this process; may be called again."""
    aiokafka.client.create_conn = _noted


def identity(options: dict[str, Any]) -> Identity:
    """Of a client by what it is opened with; aiokafka names a mechanism also where there is no SASL."""
    protocol = options.get("security_protocol", "PLAINTEXT")
    mechanism = options.get("sasl_mechanism") if protocol.startswith("SASL") else None
    return protocol, mechanism, options.get("sasl_plain_username"), id(options.get("ssl_context"))


def refusal(options: dict[str, Any]) -> str | None:
    """Why brokers refuse clients that are opened with these options; None while all of them take us."""
    return next(iter(list(_refusals.get(identity(options), {}).values())), None)


async def _noted(host: str, port: int, **options: Any) -> Any:
    whose, address = identity(options), f"{host}:{port}"
    try:
        connection = await _create(host, port, **options)
    except Exception as error:
        told = why(error, address, options)
        if told is not None:
            _refusals.setdefault(whose, {})[address] = told
        raise
    _refusals.get(whose, {}).pop(address, None)
    return connection


def why(error: BaseException, address: str, options: dict[str, Any]) -> str | None:
    """The refusal in an error; None where it is an outage, which passes."""
    _, mechanism, user, _ = identity(options)
    causes = [error, *(cause for cause in (error.__cause__, error.__context__) if cause is not None)]
    for cause in causes:
        if isinstance(cause, TokenRefusedError):
            return str(cause)
        if isinstance(cause, SaslAuthenticationFailed):
            return _wrong_login(address, mechanism, user)
        if isinstance(cause, UnsupportedSaslMechanismError):
            return f"Kafka at {address} does not take KAFKA_SASL_MECHANISM={mechanism}: {_taken(cause)}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"Kafka at {address} is not trusted: {_wrong_certificate(cause, address)}"
        if isinstance(cause, ssl.SSLError):
            return _wrong_tls(cause, address)
        # aiokafka's own for what a broker says in a SCRAM exchange; it ends the connection without a code.
        if mechanism and isinstance(cause, ValueError | AssertionError):
            return _wrong_login(address, mechanism, user)
    return None


def _wrong_login(address: str, mechanism: str | None, user: str | None) -> str:
    if mechanism == "OAUTHBEARER":
        return (
            f"Kafka at {address} refuses the token that KAFKA_SASL_OAUTH_TOKEN_URL gave: are its issuer, audience and "
            "scope (KAFKA_SASL_OAUTH_SCOPE) those that the brokers want, do they know the key that signed it, and are "
            "all clocks right?"
        )
    return (
        f"Kafka at {address} refuses the user {user!r}: set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD to a user that "
        f"was made there for {mechanism}"
    )


def _taken(error: BaseException) -> str:
    told = str(error).partition("are:")[2].strip()
    return f"it takes {told}" if told else "ask its operator which it takes"


def _wrong_certificate(error: ssl.SSLCertVerificationError, address: str) -> str:
    if error.verify_code == EXPIRED:
        return "its certificate has expired; its operator must renew it (is this machine's clock right?)"
    if error.verify_code == NOT_YET_VALID:
        return "its certificate is not valid yet; is this machine's clock right?"
    if error.verify_code in OTHER_NAME:
        name = address.rpartition(":")[0]
        return f"its certificate is not for {name}; use a name that it is for in KAFKA_BOOTSTRAP_SERVERS"
    if error.verify_code in UNKNOWN_AUTHORITY:
        return (
            "its certificate is of an authority that is not known here; set KAFKA_SSL_CAFILE to the PEM file of the "
            "authority that signed it"
        )
    return f"its certificate does not verify ({error.verify_message})"


def _wrong_tls(error: ssl.SSLError, address: str) -> str:
    reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if any(alert in reason for alert in ALERTS):
        return (
            f"Kafka at {address} refuses our certificate ({reason}): set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE to "
            "one that its authority has signed"
        )
    return f"what listens at {address} does not speak TLS ({reason}): is it the port for KAFKA_SECURITY_PROTOCOL?"
