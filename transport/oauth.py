"""Tokens for SASL/OAUTHBEARER by the client-credentials grant (RFC 6749, 4.4), fetched anew before they expire."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import httpx
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
DEFAULT_LIFETIME_S = 300.0  # of a token whose lifetime is not told
EARLY_SHARE, EARLY_AT_MOST_S = 0.2, 60.0  # how long before its end a token is not handed out any more
MAX_REPLY_BYTES = 64 * 1024


class TokenRefusedError(KafkaError):  # type: ignore[misc]  # aiokafka is not typed
    """No token can be had; the message says why, without any secret."""


class _Reply(BaseModel):
    """Source: RFC 6749, 5.1."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    access_token: str = Field(min_length=1)
    expires_in: float | None = Field(None, gt=0, allow_inf_nan=False)


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is not typed
    """One for all clients of a process: Faust's consumers ask it from threads and loops of their own."""

    def __init__(
        self, url: str, *, client_id: str, client_secret: str, scope: str | None,
        now: Callable[[], float] = time.monotonic, transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        """`url`: of the token endpoint; `transport`: for tests."""
        self._url, self._client_id, self._client_secret, self._scope = url, client_id, client_secret, scope
        self._now, self._transport = now, transport
        self._lock = threading.Lock()
        self._token, self._good_until = "", float("-inf")

    async def token(self) -> str:
        """A token that is good for a while. Called by aiokafka for each connection.

        Raises:
            TokenRefusedError: The endpoint does not give one.
        """
        if self._now() < self._good_until:
            return self._token
        return await asyncio.to_thread(self._fetched)

    def _fetched(self) -> str:
        with self._lock:  # whoever waited for another's call takes what that one got
            if self._now() >= self._good_until:
                asked_at = self._now()
                reply = self._ask()
                lifetime_s = reply.expires_in or DEFAULT_LIFETIME_S
                early_s = min(EARLY_AT_MOST_S, lifetime_s * EARLY_SHARE)
                self._token, self._good_until = reply.access_token, asked_at + lifetime_s - early_s
            return self._token

    def _ask(self) -> _Reply:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        try:
            with (
                httpx.Client(timeout=TIMEOUT_S, trust_env=False, transport=self._transport) as client,
                client.stream(
                    "POST", self._url, data=form, auth=(self._client_id, self._client_secret),
                    headers={"accept": "application/json"},
                ) as reply,
            ):  # fmt: skip
                body = bytearray()
                for piece in reply.iter_bytes():
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise TokenRefusedError(f"{self._url} answers with more than {MAX_REPLY_BYTES} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TokenRefusedError(
                f"no token for Kafka: KAFKA_SASL_OAUTH_TOKEN_URL ({self._url}) does not answer ({type(error).__name__})"
            ) from None
        if reply.status_code != 200:
            raise TokenRefusedError(
                f"no token for Kafka: {self._url} answers {reply.status_code}: are KAFKA_SASL_OAUTH_CLIENT_ID, "
                "KAFKA_SASL_OAUTH_CLIENT_SECRET and KAFKA_SASL_OAUTH_SCOPE right?"
            )
        try:
            return _Reply.model_validate_json(bytes(body))
        except ValidationError:
            raise TokenRefusedError(f"no token for Kafka: {self._url} answers without an access_token") from None
