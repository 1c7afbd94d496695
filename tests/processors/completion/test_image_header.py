"""What an image is said to be by its first bytes, and what is not taken for one."""

import random
import struct

import pytest

from processors.completion.image_header import MAX_SIDE, ImageFacts, InvalidImageError, image_facts
from tests.pictures import GIF, JPEG, WEBP_LOSSLESS, WEBP_LOSSY, png

VP8X = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (4000 - 1).to_bytes(3, "little") + (3000 - 1).to_bytes(3, "little")
KINDS = {"png": png(), "jpeg": JPEG, "gif": GIF, "lossy": WEBP_LOSSY, "lossless": WEBP_LOSSLESS, "vp8x": VP8X}


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (png(640, 480), ImageFacts("image/png", 640, 480)), (JPEG, ImageFacts("image/jpeg", 1, 1)),
        (GIF, ImageFacts("image/gif", 1, 1)), (WEBP_LOSSY, ImageFacts("image/webp", 1, 1)),
        (WEBP_LOSSLESS, ImageFacts("image/webp", 1, 1)), (VP8X, ImageFacts("image/webp", 4000, 3000)),
    ],
)  # fmt: skip
def test_a_header_is_read(content: bytes, facts: ImageFacts) -> None:
    assert image_facts(content) == facts


def test_a_jpeg_is_read_past_its_thumbnail() -> None:
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(JPEG)) + JPEG  # a whole image, as cameras put it there
    large = JPEG.replace(b"\x08\x00\x01\x00\x01\x01", b"\x08\x00\x10\x00\x20\x01")
    assert image_facts(b"\xff\xd8" + exif + b"\xff\xff\xff" + large[3:]) == ImageFacts("image/jpeg", 32, 16)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"GIF", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"BM" + b"\0" * 60, b"MZ" + b"\0" * 60,
        b"RIFF\0\0\0\0WAVEfmt ", b"<html><img src=x>", png()[:8] + b"<script>", b"\xff\xd8\xff\xd9", png(0, 3),
        b"\xff\xd8\xff\xe0\0\0" + b"\0" * 99, b"\xff\xd8" + b"\xff" * 100_000, b"\x89PNG\n\x1a\n" + png()[8:],
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidImageError):
        image_facts(content)


def test_what_would_unpack_to_too_much_is_refused_by_its_header() -> None:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 30_000, 30_000, 0)
    bombs = [
        png(30_000, 30_000), png(8001, 8001), png(MAX_SIDE + 1, 1), GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:],
        GIF[: GIF.index(b"\x2c\0\0")] + frame,  # out of the screen that its header tells of
        VP8X[:24] + b"\xff" * 6, JPEG.replace(b"\x08\x00\x01\x00\x01\x01", b"\x08\x75\x30\x75\x30\x01"),
        WEBP_LOSSLESS[:21] + b"\xff\xff\xff\x0f", WEBP_LOSSY[:26] + b"\xff\x3f\xff\x3f",
    ]  # fmt: skip
    for bomb in bombs:
        with pytest.raises(InvalidImageError, match="pixels"):
            image_facts(bomb)
    assert image_facts(png(8000, 8000)).width == 8000


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_one_is_refused_or_read_and_nothing_else_happens(kind: str) -> None:
    content, chance = KINDS[kind], random.Random(7)
    broken = [content[:length] for length in range(len(content))]
    for _ in range(2000):
        spoiled = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        broken.append(bytes(spoiled))
    for one in broken:
        try:
            facts = image_facts(one)
        except InvalidImageError:
            continue
        assert 0 < facts.width <= MAX_SIDE
        assert 0 < facts.height <= MAX_SIDE
