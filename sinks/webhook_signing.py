"""Secrets and signatures of webhooks. Source: Standard Webhooks 1.0, "Signature scheme"."""

import base64
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from processors.errors import PermanentError
from schemas.ids import derive_key
from sinks.pool import Pool

OVERLAP = timedelta(hours=24)  # what a rotation has replaced signs for so long
MAX_ROTATIONS = 5  # within that time: each one is a signature more on every webhook


class RotatedTooOftenError(PermanentError):
    """Another rotation would take away a secret that its user may count on."""

    def __init__(self) -> None:
        hours = int(OVERLAP.total_seconds() / 3600)
        super().__init__(
            "rotated-too-often", f"at most {MAX_ROTATIONS} rotations in {hours} h: wait, then rotate again"
        )


class WebhookSecrets:
    """One secret per user, derived and never stored; only its version is, and when the last ones were replaced."""

    def __init__(self, pool: Pool, *, masters: Sequence[str]) -> None:
        """`masters`: the deployment's secret, then those that it replaces and that still sign."""
        self._pool, self._masters = pool, tuple(masters)

    async def current(self, user_id: str) -> str:
        """As users paste it into their library: `whsec_<base64>`.

        Raises:
            RetryableError: Postgres is away.
        """
        version, _ = await self._version(user_id)
        return "whsec_" + base64.b64encode(self._keys(user_id, version)[0]).decode()

    async def rotate(self, user_id: str) -> str:
        """A new secret; those that it replaces sign beside it for 24 h.

        Raises:
            RotatedTooOftenError: Too many would sign at once.
            RetryableError: Postgres is away.
        """
        async with self._pool.connection() as connection:
            rotated = await connection.fetchval(
                """INSERT INTO webhook_secrets AS s (user_id, version, rotations) VALUES ($1, 2, ARRAY[now()])
                   ON CONFLICT (user_id) DO UPDATE SET
                       version = s.version + 1, rotated_at = now(),
                       rotations = ARRAY(SELECT at FROM unnest(s.rotations) AS at WHERE at > now() - $2::interval
                                         ORDER BY at) || now()
                   WHERE (SELECT count(*) FROM unnest(s.rotations) AS at WHERE at > now() - $2::interval) < $3
                   RETURNING version""",
                user_id, OVERLAP, MAX_ROTATIONS,
            )  # fmt: skip
        if rotated is None:
            raise RotatedTooOftenError
        return await self.current(user_id)

    async def signing_keys(self, user_id: str, now: datetime) -> list[bytes]:
        """Those that sign now, newest first."""
        version, rotations = await self._version(user_id)
        replaced = sum(now - at < OVERLAP for at in rotations)
        return [key for older in range(replaced + 1) for key in self._keys(user_id, version - older)]

    async def _version(self, user_id: str) -> tuple[int, list[datetime]]:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                "SELECT version, rotations FROM webhook_secrets WHERE user_id = $1", user_id
            )
        return (row["version"], row["rotations"]) if row else (1, [])

    def _keys(self, user_id: str, version: int) -> list[bytes]:
        return [derive_key(master, f"webhook/{version}/{user_id}") for master in self._masters]


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
