"""Images on their way in: what they are, and how many large bodies are in memory at once."""

import asyncio
import binascii
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from ingress.http.problems import Problem
from processors.completion.image_header import InvalidImageError, image_facts
from schemas.ids import uuid7
from schemas.requests import MAX_IMAGE_BYTES, ImageReference, ImageType

PLACES, PLACES_PER_USER, PLACE_WAIT_S = 4, 2, 10.0  # each is up to some 25 MB: as it came, and decoded
MAX_DATA_URL_HEAD = 256
WHITE_SPACE = b" \t\r\n"
NO_BASE64 = "image: it is no base64: send the file's bytes in standard base64 with padding, or as a data: URL"


class Place:
    """One of those for large bodies; may be left more than once."""

    def __init__(self, on_leave: Callable[[], None]) -> None:
        self._on_leave: Callable[[], None] | None = on_leave

    def leave(self) -> None:
        """Let the next one in."""
        if self._on_leave is not None:
            self._on_leave()
        self._on_leave = None


class Places:
    """How many bodies over the ordinary bound are in this process's memory at once."""

    def __init__(self, *, most: int = PLACES, per_user: int = PLACES_PER_USER, wait_s: float = PLACE_WAIT_S) -> None:
        self._free, self._per_user, self._wait_s = asyncio.Semaphore(most), per_user, wait_s
        self._of: Counter[str] = Counter()

    async def take(self, user_id: str) -> Place:
        """Wait for one, for a while.

        Raises:
            Problem: There is none, or the user has as many as one may have.
        """
        if self._of[user_id] >= self._per_user:
            detail = f"at most {self._per_user} large bodies of yours are taken at once: send them one after another"
            raise Problem(429, "too-many-uploads", detail, headers={"Retry-After": "2"}, retry_after_s=2)
        self._of[user_id] += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except BaseException as error:
            self._forget(user_id)
            if isinstance(error, TimeoutError):
                detail = "too many large bodies are under way here; try again"
                raise Problem(503, "overloaded", detail, headers={"Retry-After": "2"}) from None
            raise

        def leave() -> None:
            self._forget(user_id)
            self._free.release()

        return Place(leave)

    def _forget(self, user_id: str) -> None:
        self._of[user_id] -= 1
        if not self._of[user_id]:
            del self._of[user_id]


@dataclass(slots=True)
class Upload:
    """An image that has come and is not stored yet. It is in memory, and may have a place, until it is let go.

    Its file's name, if it had one, is not among what is kept: nothing here is named by whoever sends it.
    """

    payload_id: UUID
    media_type: ImageType
    sha256: str
    size: int
    content: bytes
    place: Place | None = None

    @property
    def reference(self) -> ImageReference:
        """As events will carry it."""
        return ImageReference(
            payload_id=self.payload_id, media_type=self.media_type, size=self.size, sha256=self.sha256
        )  # fmt: skip

    def let_go(self) -> None:
        """It is stored, or not wanted; may be called more than once."""
        self.content = b""
        if self.place is not None:
            self.place.leave()


def upload_of(content: bytes) -> Upload:
    """Look at an image. Hashes all of it: call it in a thread for large ones.

    Raises:
        Problem: It is too large, or no image that is taken.
    """
    if len(content) > MAX_IMAGE_BYTES:
        raise too_large()
    try:
        facts = image_facts(content)
    except InvalidImageError as error:
        raise Problem(400, "image-invalid", f"image: {error}") from None
    return Upload(uuid7(), facts.media_type, sha256(content).hexdigest(), len(content), content)


def decoded(text: bytes | memoryview) -> bytes:
    """What stands in base64, or in a `data:` URL whose media type nobody relies on.

    Raises:
        Problem: It is neither, or too large.
    """
    head = bytes(text[:MAX_DATA_URL_HEAD])
    if head[:5].lower() == b"data:":
        kind, comma, _ = head.partition(b",")
        if not comma or not kind.lower().endswith(b";base64"):
            raise Problem(400, "image-invalid", NO_BASE64)
        text = text[len(kind) + 1 :]
    try:
        if len(text) // 4 * 3 > MAX_IMAGE_BYTES + 2:
            text = _without_white_space(text)
            if len(text) // 4 * 3 > MAX_IMAGE_BYTES + 2:
                raise too_large()
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            return binascii.a2b_base64(_without_white_space(text), strict_mode=True)
    except binascii.Error:
        raise Problem(400, "image-invalid", NO_BASE64) from None


def _without_white_space(text: bytes | memoryview) -> bytes:
    return bytes(text).translate(None, WHITE_SPACE)


def too_large() -> Problem:
    """The image is."""
    return Problem(413, "image-too-large", f"image: it is larger than {MAX_IMAGE_BYTES} bytes: send a smaller one")
