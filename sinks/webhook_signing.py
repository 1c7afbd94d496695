"""Secrets and signatures of webhooks. Source: Standard Webhooks 1.0, "Signature scheme"."""

import base64
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from schemas.ids import derive_key
from sinks.pool import Pool

OVERLAP = timedelta(hours=24)  # after a rotation both secrets sign for so long


class WebhookSecrets:
    """One secret per user, derived and never stored; only its version is."""

    def __init__(self, pool: Pool, *, master: str) -> None:
        """`master`: the deployment's secret."""
        self._pool, self._master = pool, master

    async def current(self, user_id: str) -> str:
        """As users paste it into their library: `whsec_<base64>`.

        Raises:
            RetryableError: Postgres is away.
        """
        version, _ = await self._version(user_id)
        return "whsec_" + base64.b64encode(self._key(user_id, version)).decode()

    async def rotate(self, user_id: str) -> str:
        """A new secret; the old one signs beside it for 24 h."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """INSERT INTO webhook_secrets (user_id, version) VALUES ($1, 2)
                   ON CONFLICT (user_id) DO UPDATE SET version = webhook_secrets.version + 1, rotated_at = now()""",
                user_id,
            )
        return await self.current(user_id)

    async def signing_keys(self, user_id: str, now: datetime) -> list[bytes]:
        """Those that sign now, newest first."""
        version, rotated_at = await self._version(user_id)
        keys = [self._key(user_id, version)]
        if rotated_at is not None and now - rotated_at < OVERLAP:
            keys.append(self._key(user_id, version - 1))
        return keys

    async def _version(self, user_id: str) -> tuple[int, datetime | None]:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                "SELECT version, rotated_at FROM webhook_secrets WHERE user_id = $1", user_id
            )
        return (row["version"], row["rotated_at"]) if row else (1, None)

    def _key(self, user_id: str, version: int) -> bytes:
        return derive_key(self._master, f"webhook/{version}/{user_id}")


def signed_headers(webhook_id: str, body: bytes, keys: Sequence[bytes], *, now: datetime) -> Mapping[str, str]:
    """The headers of one attempt; its time is that of the attempt, its id that of the outcome."""
    timestamp = str(int(now.astimezone(UTC).timestamp()))
    content = f"{webhook_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, content, sha256)).decode() for key in keys]
    return {
        "content-type": "application/json",
        "user-agent": "assistant-stream",
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
