"""A broker's refusal of a token is heard; the real thing is in `tests/pipeline/test_kafka_security.py`."""

import aiokafka.conn
import pytest
from aiokafka.errors import SaslAuthenticationFailed

from transport import oauth_answers
from transport.oauth import ClientCredentials

REFUSED = b'{"status":"invalid_token"}'


class Given(ClientCredentials):
    def __init__(self) -> None:
        pass

    async def token(self) -> str:
        return "a-token"


@pytest.fixture
def exchange() -> aiokafka.conn.OAuthAuthenticator:
    oauth_answers.install()
    return aiokafka.conn.OAuthAuthenticator(sasl_oauth_token_provider=Given())


async def test_a_token_that_is_taken_needs_no_more_words(exchange: aiokafka.conn.OAuthAuthenticator) -> None:
    assert await exchange.step(None) == (b"n,,\x01auth=Bearer a-token\x01\x01", True)
    assert await exchange.step(b"") is None


async def test_one_that_is_not_is_answered_so_that_the_broker_says_its_error(
    exchange: aiokafka.conn.OAuthAuthenticator,
) -> None:
    await exchange.step(None)
    assert await exchange.step(REFUSED) == (b"\x01", True)
    with pytest.raises(SaslAuthenticationFailed):  # a broker that then says nothing has not taken it either
        await exchange.step(b"")
