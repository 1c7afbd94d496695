"""What an image is, by its first bytes: format and size in pixels. Nothing is unpacked.

A file of a few kilobytes may unpack to gigabytes at whoever shows it; how large it would be stands in its header.
Sources: PNG 3rd edition, 11.2.1; ITU-T T.81, B.2.2; GIF89a, 18-20; RFC 9649 (WebP), 2.5-2.7.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import error, unpack_from

from schemas.requests import ImageType

MAX_PIXELS = 64_000_000  # cameras of 50 megapixels are within it; unpacked they are 256 MB
MAX_SIDE = 20_000
MAX_STEPS = 10_000  # parts that are stepped over; a photo has some twenty
NO_IMAGE = "it is no PNG, JPEG, WebP or GIF, or not a whole one"


class InvalidImageError(ValueError):
    """It is none that is taken; the message says why, for whoever sent it."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a header says."""

    media_type: ImageType
    width: int
    height: int


def image_facts(content: bytes) -> ImageFacts:
    """Read an image's header.

    Raises:
        InvalidImageError: It is of no format that is taken, broken, without pixels, or would unpack to too many.
    """
    try:
        media_type, size = _found(content)
    except (error, IndexError):
        raise InvalidImageError(NO_IMAGE) from None
    width, height = size
    if not width or not height:
        raise InvalidImageError(NO_IMAGE)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        most = MAX_PIXELS // 1_000_000
        raise InvalidImageError(
            f"it has {width} x {height} pixels: at most {most} million are taken, and {MAX_SIDE} on a side"
        )
    return ImageFacts(media_type, width, height)


def _found(content: bytes) -> tuple[ImageType, tuple[int, int]]:
    formats: tuple[tuple[ImageType, bool, Callable[[bytes], tuple[int, int]]], ...] = (
        ("image/png", content.startswith(b"\x89PNG\r\n\x1a\n"), _png),
        ("image/jpeg", content.startswith(b"\xff\xd8\xff"), _jpeg),
        ("image/gif", content.startswith((b"GIF87a", b"GIF89a")), _gif),
        ("image/webp", content.startswith(b"RIFF") and content[8:12] == b"WEBP", _webp),
    )
    for media_type, fits, read in formats:
        if fits:
            return media_type, read(content)
    raise InvalidImageError(NO_IMAGE)


def _png(content: bytes) -> tuple[int, int]:
    length, kind, width, height = unpack_from(">I4sII", content, 8)
    if (length, kind) != (13, b"IHDR"):  # it has to be the first chunk
        raise InvalidImageError(NO_IMAGE)
    return width, height


def _jpeg(content: bytes) -> tuple[int, int]:
    """Over the segments to the frame header, which all other sizes have to fit into."""
    place = 2
    for _ in range(MAX_STEPS):
        if content[place] != 0xFF:
            break
        marker = content[place + 1]
        if marker == 0xFF:  # there may be any number of fill bytes
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # tables and an extension lie between them
            height, width = unpack_from(">HH", content, place + 5)
            return width, height
        if marker in (0xD9, 0xDA):  # the end, or pixels without a frame
            break
        (length,) = unpack_from(">H", content, place + 2)
        if length < 2:
            break
        place += 2 + length
    raise InvalidImageError(NO_IMAGE)


def _gif(content: bytes) -> tuple[int, int]:
    """The screen, and the first frame where it reaches out of it."""
    width, height, flags = unpack_from("<HHB", content, 6)
    place, steps = 13 + _table_bytes(flags), 0
    while content[place] == 0x21 and steps < MAX_STEPS:  # an extension: its label, blocks, and an empty one
        place, steps = place + 2, steps + 1
        while content[place] and steps < MAX_STEPS:
            place, steps = place + 1 + content[place], steps + 1
        place += 1
    if content[place] != 0x2C:
        raise InvalidImageError(NO_IMAGE)
    left, top, frame_width, frame_height = unpack_from("<HHHH", content, place + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + _whole(content, 27)
    if kind == b"VP8L" and content[20] == 0x2F:
        (bits,) = unpack_from("<I", content, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise InvalidImageError(NO_IMAGE)


def _whole(content: bytes, place: int) -> int:
    """Three bytes, all of which are there."""
    return content[place] | content[place + 1] << 8 | content[place + 2] << 16
