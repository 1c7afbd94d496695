"""Real images, small ones."""

import base64
import struct
import zlib

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAAMCAgICAgMCAgIDAwMDBAYEBAQEBAgGBgUGCQgKCgkICQkKDA8MCgsOCwkJDRENDg8QEBEQCgwSExIQ"
    "Ew8QEBD/yQALCAABAAEBAREA/8wABgAQEAX/2gAIAQEAAD8A0s8g/9k="
)
WEBP_LOSSY = base64.b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA=")
WEBP_LOSSLESS = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")


def png(width: int = 2, height: int = 3, *, size: int = 0, seed: bytes = b"") -> bytes:
    """Grey, whatever its header says; `size`: filled up to so many bytes; another `seed` is another image."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((min(width, 50) + 1) * min(height, 50)))
    made = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"tEXt", b"seed\0" + seed) + _chunk(b"IDAT", rows)
    end = _chunk(b"IEND", b"")
    if missing := max(0, size - len(made) - len(end) - 12):
        made += _chunk(b"teXt", (b"0123456789abcdefghijklmnopqrstuvwxyz" * (missing // 36 + 1))[:missing])
    return made + end


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()
