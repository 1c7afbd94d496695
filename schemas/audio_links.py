"""Addresses of audio that work for whoever has them, for a while: a player or a browser sends no token."""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal
from uuid import UUID

from schemas.ids import derive_key

LINK_S = 3600
WEBHOOK_LINK_S = 86_400  # a webhook may have to be sent a few times, and its body stays the same
Verdict = Literal["good", "expired", "wrong"]


class AudioLinks:
    """Makes and checks them: an HMAC over job and time, by a key that is for nothing else."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """`secrets`: the current one first, then those that are still honoured during a rotation."""
        self._keys = [derive_key(secret, "audio-link") for secret in secrets]

    def path(self, job_id: UUID, *, now_s: float, good_for_s: int = LINK_S) -> str:
        """Of a job's audio, good for an hour, or as long as is said."""
        expires = int(now_s) + good_for_s
        return f"/jobs/{job_id}/audio?expires={expires}&signature={_signature(self._keys[0], job_id, expires)}"

    def verdict(self, job_id: UUID, expires: int, signature: str, *, now_s: float) -> Verdict:
        """What an address is worth. That it has expired is only said of one that was good."""
        known = [_signature(key, job_id, expires) for key in self._keys]
        if not any(hmac.compare_digest(one.encode(), signature.encode()) for one in known):
            return "wrong"
        return "good" if now_s < expires else "expired"


def _signature(key: bytes, job_id: UUID, expires: int) -> str:
    return hmac.new(key, f"{job_id}/{expires}".encode(), sha256).hexdigest()
