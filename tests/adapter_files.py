"""Adapters as llama.cpp reads them, made without torch; and what a GGUF file says of itself."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

WIDTH, KEYS_WIDTH, BLOCKS, RANK = 576, 192, 30, 2  # of SmolLM2-135M
U32, F32, TEXT, ARRAY = 4, 6, 8, 9
PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", U32: "I", 5: "i", F32: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
ALIGNMENT = 32


def write_adapter(path: Path, *, strength: float, alpha: float = 2, seed: int = 1) -> Path:
    """One of random numbers, which turns every answer into nonsense where `strength` is large."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for block in range(BLOCKS):
        name = f"blk.{block}.attn_v.weight"
        tensors[f"{name}.lora_a"] = random.standard_normal((RANK, WIDTH), np.float32)
        tensors[f"{name}.lora_b"] = random.standard_normal((KEYS_WIDTH, RANK), np.float32) * np.float32(strength)
    return write_gguf(path, {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": alpha,
    }, tensors)  # fmt: skip


def write_gguf(path: Path, facts: dict[str, str | float], tensors: dict[str, NDArray[np.float32]]) -> Path:
    """Source: ggml, docs/gguf.md."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(facts))
    for key, value in facts.items():
        kind = TEXT if isinstance(value, str) else F32
        head += _text(key) + struct.pack("<I", kind)
        head += _text(value) if isinstance(value, str) else struct.pack("<f", value)
    place = 0
    for name, tensor in tensors.items():
        head += _text(name) + struct.pack("<I", tensor.ndim)
        head += struct.pack(f"<{tensor.ndim}QIQ", *reversed(tensor.shape), 0, place)
        place += _padded(tensor.nbytes)
    with path.open("wb") as file:
        file.write(head.ljust(_padded(len(head)), b"\0"))
        for tensor in tensors.values():
            file.write(tensor.astype("<f4").tobytes().ljust(_padded(tensor.nbytes), b"\0"))
    return path


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """What it says of itself, and the shapes of its tensors, rows first."""
    with path.open("rb") as file:
        magic, version, tensors, facts = struct.unpack("<4sIQQ", file.read(24))
        assert (magic, version) == (b"GGUF", 3)
        said = {_read_text(file): _read_value(file, *_read(file, "I")) for _ in range(facts)}
        shapes: dict[str, tuple[int, ...]] = {}
        for _ in range(tensors):
            name = _read_text(file)
            (count,) = _read(file, "I")
            *sizes, _kind, _place = _read(file, f"{count}QIQ")
            shapes[name] = tuple(reversed(sizes))
    return said, shapes


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _read(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def _read_text(file: BinaryIO) -> str:
    return file.read(_read(file, "Q")[0]).decode()


def _read_value(file: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _read_text(file)
    if kind == ARRAY:
        kind, count = _read(file, "IQ")
        return [_read_value(file, kind) for _ in range(count)]
    return _read(file, PLAIN[kind])[0]
