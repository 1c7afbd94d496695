"""What a parser makes of a file."""

from pathlib import Path

from parsing.bounds import Bounds
from parsing.parser import ChildParser
from processors.documents.document_ports import Block, Pages
from processors.errors import PermanentError


async def pages_of(path: Path, bounds: Bounds | None = None) -> list[Pages]:
    return [pages async for pages in ChildParser(bounds).parse(path)]


async def blocks_of(path: Path, bounds: Bounds | None = None) -> list[Block]:
    return [block for pages in await pages_of(path, bounds) for block in pages.blocks]


async def refusal_of(path: Path, bounds: Bounds | None = None) -> PermanentError:
    try:
        found = await blocks_of(path, bounds)
    except PermanentError as error:
        return error
    raise AssertionError(f"it was read: {found[:3]}")
