"""A form with one file, read as it comes: nothing of it is kept here.

Starlette's own writes a form to the disk before anybody sees it, and then it is read once more.
"""

from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ingress.http.bodies import FORM
from ingress.http.problems import Problem, invalid_body

FIELD = "file"
MAX_TYPE_CHARS = 100


class FileForm:
    """The form's file. `name`, `media_type`: as its sender says, once `parts` has told anything."""

    def __init__(self, request: Request) -> None:
        """Raises Problem where the body is no form."""
        kind, options = parse_options_header(request.headers.get("content-type"))
        boundary = options.get(b"boundary")
        if kind.decode(errors="replace").lower() != FORM or not boundary:
            raise _wrong(f"send it as {FORM}, with the file as its field `{FIELD}`")
        self.name, self.media_type = "", "application/octet-stream"
        self._request = request
        self._has_begun = self._has_ended = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._found: list[bytes] = []
        try:
            self._parser = MultipartParser(boundary, {
                "on_part_begin": self._begin, "on_part_data": self._take, "on_header_field": self._take_field,
                "on_header_value": self._take_value, "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers, "on_end": self._end,
            })  # fmt: skip
        except FormParserError as error:
            raise _broken(error) from None

    async def parts(self) -> AsyncIterator[bytes]:
        """The file's content, in pieces of any size.

        Raises:
            Problem: It is no such form, ends too early, or its sender has left.
        """
        try:
            async for chunk in self._request.stream():
                self._parser.write(chunk)
                found, self._found = self._found, []
                for piece in found:
                    yield piece
        except FormParserError as error:
            raise _broken(error) from None
        except ClientDisconnect:
            raise Problem(499, "caller-left", "the caller closed the connection") from None
        if not self._has_ended:
            raise _wrong("the form has no end: send all of it")
        if not self._has_begun:
            raise _wrong(f"there is no file in the form: its field is `{FIELD}`")

    # --- as the parser calls them ---

    def _begin(self) -> None:
        self._headers = {}
        if self._has_begun:
            raise _wrong("there is more than one part in the form: send one file")

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        field = options.get(b"name", b"").decode(errors="replace")
        if field != FIELD:
            raise invalid_body([{"loc": (field,), "msg": f"is not taken: the only field is `{FIELD}`, the file"}])
        self._has_begun = True
        self.name = options.get(b"filename", b"").decode(errors="replace")
        said = self._headers.get(b"content-type", b"").decode("ascii", errors="ignore").partition(";")[0].strip()
        if said and len(said) <= MAX_TYPE_CHARS and said.isprintable():
            self.media_type = said.lower()

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _end(self) -> None:
        self._has_ended = True


def _broken(error: FormParserError) -> Problem:
    return _wrong(f"the form cannot be read: {error}")


def _wrong(message: str) -> Problem:
    return invalid_body([{"loc": (), "msg": message}])
