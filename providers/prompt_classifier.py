"""A model's verdict on a prompt, from a service of the operator's: `POST {"text"}` -> `{"score": 0-1, "label"?}`."""

import asyncio

import httpx
from pydantic import BaseModel, Field, ValidationError

from processors.errors import RetryableError
from providers.plain_http import asked, make_http_client

NAME = "prompt-classifier"
MAX_REPLY_BYTES = 65_536


class _Reply(BaseModel):
    score: float = Field(ge=0, le=1, allow_inf_nan=False)
    label: str | None = None  # for people; what follows depends on the score alone


class HttpPromptClassifier:
    """See `PromptClassifier`."""

    def __init__(self, url: str, *, timeout_s: float, connections: int) -> None:
        self._client: httpx.AsyncClient = make_http_client(base_url="", connections=connections)
        self._url, self._timeout_s = url, timeout_s

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def score(self, text: str) -> float:
        """See `PromptClassifier.score`."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                asked(self._client, NAME, "POST", self._url, timeout_s=self._timeout_s, json={"text": text}) as reply,
            ):
                body = b""
                async for piece in reply.aiter_raw():
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise RetryableError("classifier-failed", f"its reply is longer than {MAX_REPLY_BYTES} bytes")
                return _Reply.model_validate_json(body).score
        except TimeoutError:
            raise RetryableError("classifier-failed", f"it has not answered in {self._timeout_s} s") from None
        except ValidationError:
            raise RetryableError("classifier-failed", "its reply has no score from 0 to 1") from None
