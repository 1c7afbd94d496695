"""The process that reads one file: its standard input. `python -m parsing.child PARENT BOUNDS`.

What it says is a JSON line for each portion, and in the end `{"done": true}` or `{"code": ..., "message": ...}`.
"""

import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, cast

from parsing import confined
from parsing.bounds import Bounds
from parsing.pieces import Portion
from parsing.refusals import empty, too_large, unreadable
from parsing.writing import Writer
from processors.errors import PermanentError


def main() -> None:
    """Read it."""
    parent, bounds = int(sys.argv[1]), Bounds.from_json(sys.argv[2])
    confined.without_network()
    confined.follow(parent)
    confined.forbid()
    file = cast("BinaryIO", io.BufferedReader(io.FileIO(0, closefd=False)))
    writer = Writer(sys.stdout.buffer, bounds, allow_cpu=confined.allow_cpu)
    most_cpu_s = bounds.cpu_s + bounds.cpu_per_page_s * bounds.pages
    confined.confine(memory_bytes=bounds.memory_bytes, cpu_s=bounds.cpu_s, most_cpu_s=most_cpu_s)
    try:
        _write_all(file, bounds, writer)
    except PermanentError as error:
        writer.refuse(error)
    except MemoryError:
        writer.refuse(too_large(f"reading it takes more than {bounds.memory_bytes >> 20} MiB of memory"))
    except RecursionError:
        writer.refuse(unreadable("it nests deeper than any document does"))
    except Exception as error:  # whatever a library makes of a broken file
        writer.refuse(unreadable(f"it cannot be read ({type(error).__name__})"))
    else:
        writer.done()
    sys.stdout.flush()
    os._exit(0)  # nothing is to be put in order, and some libraries take their time for it


def _write_all(file: BinaryIO, bounds: Bounds, writer: Writer) -> None:
    for portion in _read(file, bounds):
        writer.write(portion)
    if not writer.letters:
        raise empty()


def _read(file: BinaryIO, bounds: Bounds) -> Iterator[Portion]:
    from parsing.file_type import tell_type  # only now: it is confined

    match tell_type(file):
        case "pdf":
            from parsing.pdf import read_pdf

            return read_pdf(file, bounds)
        case "docx":
            from parsing.office import read_docx

            return read_docx(file, bounds)
        case "pptx":
            from parsing.office import read_pptx

            return read_pptx(file, bounds)
        case "epub":
            from parsing.epub import read_epub

            return read_epub(file, bounds)
        case _:
            from parsing.markup import read_text

            return read_text(file)


if __name__ == "__main__":
    main()
