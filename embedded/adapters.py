"""Adapters that lie in a folder, and the place that each has in the list of llama.cpp's server."""

import contextlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

SUFFIX = ".gguf"
NEUTRAL = ".neutral.gguf"  # not among those that are found: its name begins with a dot
_WIDTH, _TEXT, _F32, _ALIGNMENT = 576, 8, 6, 32  # the model's own; types and padding of a GGUF file


def newest(folder: Path, most: int) -> tuple[Path, ...]:
    """The adapters that were trained last, by name; none where there is no folder."""
    found: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                with contextlib.suppress(OSError):  # it has just been deleted
                    found.append((entry.stat().st_mtime_ns, Path(entry.path)))
    found.sort(reverse=True)
    return tuple(sorted(path for _, path in found[:most]))


def placed(before: Sequence[Path | None], wanted: Sequence[Path]) -> tuple[Path | None, ...]:
    """Who is where, after `before`; None: nobody.

    An adapter keeps its place for as long as it is there, and a place that has become free stays so once: a request
    that was on its way meanwhile must not be answered by somebody else's adapter.
    """
    places: list[Path | None] = [path if path in wanted else None for path in before]
    free = [at for at, path in enumerate(before) if path is None]
    for path in wanted:
        if path in places:
            continue
        if free:
            places[free.pop(0)] = path
        else:
            places.append(path)
    return tuple(places)


def neutral_adapter(folder: Path) -> Path:
    """One that changes nothing; it is written if need be.

    It stands at the place 0 and in the places where nobody is, and a request for the bare model names it: the server
    forgets what a slot has cached with another adapter only for a request that names one itself.
    Source: llama.cpp, issue 26207, and trials with its build 11549.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / NEUTRAL
    if not path.exists():
        import tempfile  # only now: a server without adapters is to take no more memory for them

        folder.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=folder, suffix=".draft")
        with os.fdopen(descriptor, "wb") as file:
            file.write(_zeros())
        Path(draft).replace(path)
    return path


def _zeros() -> bytes:
    """Rank 1 on one matrix, all zeros. Source: ggml, docs/gguf.md."""
    facts = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    name, size = "blk.0.attn_q.weight", 4 * _WIDTH
    head = struct.pack("<4sIQQ", b"GGUF", 3, 2, len(facts) + 1)
    for key, value in facts.items():
        head += _text(key) + struct.pack("<I", _TEXT) + _text(value)
    head += _text("adapter.lora.alpha") + struct.pack("<If", _F32, 1)
    head += _text(f"{name}.lora_a") + struct.pack("<IQQIQ", 2, _WIDTH, 1, 0, 0)
    head += _text(f"{name}.lora_b") + struct.pack("<IQQIQ", 2, 1, _WIDTH, 0, size)
    return head.ljust(-(-len(head) // _ALIGNMENT) * _ALIGNMENT, b"\0") + bytes(2 * size)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
