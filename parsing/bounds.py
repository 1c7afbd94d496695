"""How much a file may take: of the machine while it is read, and of the document that comes of it."""

import json
from dataclasses import asdict, dataclass

MIB = 1024 * 1024
MAX_LINE_BYTES = MIB  # of what the child says at once
MAX_PORTION_LETTERS = 32_768  # a letter takes at most 12 bytes on the way, so that a line always fits
MAX_PORTION_PIECES = 512
MAX_ENTRY_NAME = 512
LETTERS_PER_PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one file. The defaults are the product's; tests take smaller ones.

    `memory_bytes`: address space beside what the libraries take once they are imported. `cpu_s`: computing time, which
    grows by `cpu_per_page_s` with each page (or as much text as one has) that came out, so that a long document is read
    and a bomb is not. `idle_s`: how long nothing may come out of it. `filter_bytes`: of one packed stream of a PDF.
    """

    memory_bytes: int = 512 * MIB
    cpu_s: float = 20
    cpu_per_page_s: float = 0.1
    idle_s: float = 60
    pages: int = 20_000
    letters: int = 50_000_000
    pieces: int = 2_000_000
    filter_bytes: int = 16_000_000
    archive_bytes: int = 100 * MIB
    archive_entries: int = 1_000
    archive_ratio: int = 100

    def as_json(self) -> str:
        """As the child is given them."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Bounds":
        """As the parent gave them."""
        return cls(**json.loads(text))
