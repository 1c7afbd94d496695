"""What a broker answers to a token.

It refuses one in two steps (RFC 7628, 3.2.3): first it says why, then it waits for one more word, and only then ends
the exchange with an error. aiokafka 0.14 takes the first for a welcome; its next request is then no part of the
exchange, the broker closes the connection without a word, and it is tried again for ever, as if nobody were there.
"""

import aiokafka.conn
from aiokafka.errors import SaslAuthenticationFailed

LAST_WORD = b"\x01"


class _Hearing(aiokafka.conn.OAuthAuthenticator):  # type: ignore[misc]  # aiokafka is not typed
    """Of one connection."""

    _has_spoken = False

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """What is sent next, and that it is answered; None: the broker takes the token."""
        if not self._token_sent:
            sent: tuple[bytes, bool] = await super().step(payload)
            return sent
        if self._has_spoken:  # without the error that it owed us
            raise SaslAuthenticationFailed("the token is refused")
        if not payload:
            return None
        self._has_spoken = True
        return LAST_WORD, True


def install() -> None:
    """For every client of this process; may be called again."""
    aiokafka.conn.OAuthAuthenticator = _Hearing
