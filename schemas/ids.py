"""Ids that say whose they are, and ids that are the same each time: how a repetition is recognised everywhere."""

import hmac
import secrets
import time
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha1
from uuid import NAMESPACE_URL, UUID, uuid5

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAC_BITS = 40
_MAC_MASK = (1 << MAC_BITS) - 1
# What is left of an id when the MAC's place is empty.
_REST_MASK = ((1 << 128) - 1) ^ _MAC_MASK


def derive_key(secret: str, purpose: str) -> bytes:
    """32 bytes for one purpose, from the one secret that a deployment keeps (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode())


class JobIds:
    """Mints job ids and tells whether one was minted here for a user.

    A UUIDv8: 48 bits of time in ms, 34 random bits, 40 bits of HMAC over (user_id, the rest). Nobody else can
    claim an id of a user, and a fresh id of one's own is known as such before any row of it exists.
    """

    def __init__(self, secrets_: Sequence[str]) -> None:
        """`secrets_`: the current one first, then those that are still honoured during a rotation."""
        # Begun once: OpenSSL takes several times as long to begin one as to go on from it.
        self._keys = [hmac.new(derive_key(secret, "job-id"), digestmod="sha256") for secret in secrets_]

    def mint(self, user_id: str, *, now_ms: int | None = None) -> UUID:
        """A new id for a job of this user."""
        at = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) & ((1 << 48) - 1)
        rest = at << 80 | 8 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(22) << MAC_BITS
        return UUID(int=rest | self._mac(self._keys[0], user_id, rest))

    def belongs(self, job_id: UUID, user_id: str) -> bool:
        """True if the id was minted here for this user."""
        rest, mac = job_id.int & _REST_MASK, job_id.int & _MAC_MASK
        return any(
            hmac.compare_digest(mac.to_bytes(5, "big"), self._mac(key, user_id, rest).to_bytes(5, "big"))
            for key in self._keys
        )

    @staticmethod
    def minted_at_ms(job_id: UUID) -> int:
        """When, by the clock of the ingress; meaningful only where `belongs` holds."""
        return job_id.int >> 80

    @staticmethod
    def _mac(key: hmac.HMAC, user_id: str, rest: int) -> int:
        mac = key.copy()
        mac.update(rest.to_bytes(16, "big") + user_id.encode())
        return int.from_bytes(mac.digest()[:5], "big")


def uuid7(*, now_ms: int | None = None) -> UUID:
    """An id that sorts by its time (RFC 9562, 5.7)."""
    at = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) & ((1 << 48) - 1)
    return UUID(int=at << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62))


def direct_job_id(source: str, user_id: str, event_id: str) -> UUID:
    """The job of a direct publisher's event: its own retry makes no second job, another user's is out of reach."""
    return uuid5(_of_source(source), f"{user_id}/{event_id}")


@lru_cache(maxsize=1024)
def _of_source(source: str) -> UUID:
    return uuid5(NAMESPACE_URL, source)


def derived_event_id(job_id: UUID, *, cause: str, stage: str, run: int, index: int) -> str:
    """The id of an emitted event: the same input gives the same id."""
    # uuid5 as text, without the object in between: every event of every stage has one.
    digest = sha1(job_id.bytes + f"{cause}/{stage}/{run}/{index}".encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def document_id(user_id: str, source: str) -> UUID:
    """A user's document of that name, whichever of its versions."""
    return uuid5(uuid5(NAMESPACE_URL, "assistant-stream/documents"), f"{len(user_id)}/{user_id}/{source}")


def document_version_id(document: UUID, job_id: UUID, run: int) -> UUID:
    """The version that a run of a job makes of it."""
    return uuid5(document, f"{job_id}/{run}")


def webhook_id(job_id: UUID, run: int) -> str:
    """One per outcome, the same in every attempt to deliver it."""
    return f"msg_{uuid5(job_id, str(run)).hex}"
