"""What a form begins with, told before it is read: who reads it depends on that, and how large it may be."""

import re

from fastapi import Request
from starlette.types import Message

from ingress.http.bodies import FORM
from ingress.http.problems import Problem

HEAD_BYTES = 8_192
# At the beginning of a line only: from each of many in one line it would be looked through to the line's end.
_NAME = re.compile(rb'^content-disposition:[^\r\n]*[;\s]name="?([^";\r\n]*)', re.IGNORECASE | re.MULTILINE)


async def first_field(request: Request) -> tuple[str | None, Request]:
    """The name of a form's first field, and the request to be read from then on; None of what is no form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        return None, request
    head = bytearray()
    read: list[Message] = []
    while len(head) < HEAD_BYTES and b"\r\n\r\n" not in head:
        message = await request.receive()
        read.append(message)
        head += message.get("body", b"")
        if not message.get("more_body", False):
            break
    found = _NAME.search(head, 0, HEAD_BYTES)

    async def receive() -> Message:
        return read.pop(0) if read else await request.receive()

    return found[1].decode(errors="replace") if found else None, Request(request.scope, receive)


def with_at_most(request: Request, most: int) -> Request:
    """The request, whose body is refused once it is larger than so many bytes."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > most:
            raise Problem(413, "body-too-large", f"the body is larger than {most} bytes: send less")
        return message

    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise Problem(413, "body-too-large", f"the body is larger than {most} bytes: send less")
    return Request(request.scope, receive)
