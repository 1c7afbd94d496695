"""A reader of WAV files that shares nothing with the product's: chunk by chunk, as the RIFF specification has it."""

import struct
from dataclasses import dataclass


@dataclass
class Heard:
    rate: int
    channels: int
    bits: int
    numbers: list[int]

    @property
    def seconds(self) -> float:
        return len(self.numbers) / self.channels / self.rate

    @property
    def loudest(self) -> int:
        return max((abs(number) for number in self.numbers), default=0)

    def steps(self) -> list[int]:
        """From each sample to the next one: a click is a large step."""
        return [abs(b - a) for a, b in zip(self.numbers, self.numbers[1:], strict=False)]


def hear(content: bytes) -> Heard:
    riff, size, kind = struct.unpack_from("<4sI4s", content)
    assert (riff, kind) == (b"RIFF", b"WAVE")
    assert size == len(content) - 8, "its header says another length than it has"
    place, chunks = 12, {}
    while place < len(content):
        name, length = struct.unpack_from("<4sI", content, place)
        chunks[name] = content[place + 8 : place + 8 + length]
        assert len(chunks[name]) == length, f"{name!r} is cut"
        place += 8 + length + length % 2
    form, channels, rate, per_s, block, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    assert (form, block, per_s) == (1, channels * bits // 8, rate * channels * bits // 8)
    assert bits == 16
    samples = chunks[b"data"]
    return Heard(rate, channels, bits, list(struct.unpack(f"<{len(samples) // 2}h", samples)))
