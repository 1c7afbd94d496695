"""What is wrong with a file, in words that say what to do."""

from processors.errors import PermanentError

TYPES = "PDF, DOCX, PPTX, EPUB, HTML, Markdown and plain text"


def unreadable(what: str) -> PermanentError:
    """It is broken."""
    return PermanentError("document-unreadable", f"{what}; check that the file opens, and send it whole")


def empty(what: str = "the file holds no text") -> PermanentError:
    """There is nothing to be found in it."""
    return PermanentError("document-empty", what)


def scanned(pages: int) -> PermanentError:
    """Its pages are pictures."""
    return PermanentError(
        "document-scanned",
        f"none of its pages ({pages}) holds text: they are pictures, as a scanner makes them; make their text readable "
        "first (pip install 'assistant-stream[ocr]', then: ocrmypdf IN.pdf OUT.pdf) and send what comes of it",
    )


def encrypted() -> PermanentError:
    """It asks for a password, or for a right that is not here."""
    return PermanentError("document-encrypted", "the file is encrypted; send a copy that opens without a password")


def unknown(what: str) -> PermanentError:
    """It is of a type that is not read."""
    return PermanentError("document-type-unknown", f"{what} is not read; what is: {TYPES}")


def too_large(bound: str) -> PermanentError:
    """A bound was met."""
    return PermanentError("document-too-large", f"{bound}; split the document, and send its parts")
