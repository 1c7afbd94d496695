"""The access to Kafka as Faust wants it. Its own default is PLAIN, in the clear, whatever the mechanism is."""

from typing import Any

from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

from transport.clients import KafkaAccess


def credentials(access: KafkaAccess) -> Any:
    """For `broker_credentials`; None for PLAINTEXT."""
    options = access.options()
    context, mechanism = options.get("ssl_context"), options.get("sasl_mechanism")
    if mechanism is None:
        return SSLCredentials(context) if context is not None else None
    if mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=options["sasl_oauth_token_provider"], ssl_context=context)
    return SASLCredentials(
        username=options["sasl_plain_username"], password=options["sasl_plain_password"], ssl_context=context,
        mechanism=mechanism,
    )  # fmt: skip
