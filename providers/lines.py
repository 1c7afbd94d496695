"""Lines out of pieces of a reply, and the data lines of server-sent events. Source: WHATWG HTML, section 9.2.6."""


class Lines:
    """Fed pieces as they come, gives back the lines that they end; the cost is linear in what is fed."""

    def __init__(self) -> None:
        self._open: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        if b"\n" not in piece:
            self._open.append(piece)
            return []
        lines = b"".join((*self._open, piece)).split(b"\n")
        self._open = [lines.pop()]
        return [line.rstrip(b"\r") for line in lines]

    def rest(self) -> bytes:
        """What stands after the last end of a line."""
        return b"".join(self._open).rstrip(b"\r")


def sse_data(line: bytes) -> bytes | None:
    """What a line of `data` says; None for every other line. Each of an API's events has one of them."""
    return line[5:].removeprefix(b" ") if line.startswith(b"data:") else None
