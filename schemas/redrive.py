"""What marks a record of the public entry as a later run of its job: a header that only we can write."""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from schemas.envelope import Headers, first_header
from schemas.ids import derive_key

RUN_HEADER, MAC_HEADER = "redrive-run", "redrive-mac"
MAX_RUN = 1_000_000


class RedriveMarks:
    """Writes and reads them. The MAC is over (job_id, run): nobody else can raise a run, nor move a mark to a job."""

    def __init__(self, secrets_: Sequence[str]) -> None:
        """`secrets_`: the current one first, then those that are still honoured during a rotation."""
        self._keys = [derive_key(secret, "redrive") for secret in secrets_]

    def headers(self, job_id: UUID, run: int) -> Headers:
        """The mark."""
        return [(RUN_HEADER, str(run).encode()), (MAC_HEADER, _mac(self._keys[0], job_id, run).encode())]

    def run(self, headers: Sequence[tuple[str, bytes | None]], job_id: UUID) -> int:
        """The run of this job that a record stands for: 1 without a mark of ours."""
        told, mac = first_header(headers, RUN_HEADER), first_header(headers, MAC_HEADER)
        if told is None or mac is None or not (told.isascii() and told.isdigit()) or len(told) > len(str(MAX_RUN)):
            return 1
        run = int(told)
        fits = any(hmac.compare_digest(mac.encode(), _mac(key, job_id, run).encode()) for key in self._keys)
        return run if fits and 1 <= run <= MAX_RUN else 1


def _mac(key: bytes, job_id: UUID, run: int) -> str:
    return hmac.new(key, f"{job_id}/{run}".encode(), sha256).hexdigest()
