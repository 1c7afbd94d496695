"""Bodies of calls that may bring an image: as JSON (base64, `data:` URL, or the reference of a payload), or a form.

They are read once it is known who sends them, since they may be ten times as large as others. A form's file goes to
the disk as it comes; of JSON that is over the ordinary bound, nothing but the image may be what makes it so, and it is
taken out before the rest is parsed.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Self, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ingress.http.json_limits import JsonLimits
from ingress.http.problems import Problem, invalid_body
from ingress.http.uploads import Place, Places, Upload, decoded, too_large, upload_of
from ingress.submitting.idempotency import Keyed, checked_key, fingerprint
from schemas.events import UserUpdated
from schemas.requests import MAX_IMAGE_BYTES, ImageReference

LARGEST_BODY_BYTES = MAX_IMAGE_BYTES * 4 // 3 + 1_000_000  # the image in base64, and the rest
READ_WITHIN_S = 60.0  # of a large body: its place is wanted by others
IN_A_THREAD_BYTES = 65_536
MAX_FIELDS, MAX_FIELD_BYTES = 20, 131_072
ANY_JSON = JsonLimits()
AS_THEY_ARE = {"prompt", "instruction", "callback_url"}  # fields of a form; all others are JSON where they can be
FORM = "multipart/form-data"

B = TypeVar("B", bound=BaseModel)


class Holder(NamedTuple):
    """What of a body has an image's text as the value of a key. `param`: what OpenAI's clients call that place."""

    fields: dict[str, Any]
    param: str | None = None


class ImageKey:
    """Where in a body in JSON an image may stand."""

    def __init__(self, key: str, holder: Callable[[dict[str, Any]], Holder | None], *, in_forms: bool = False) -> None:
        """Where.

        Args:
            key: Its text is the value of.
            holder: Finds what of a body has this key; raises Problem where an image stands elsewhere.
            in_forms: The body may be a form, too.
        """
        self.key, self.holder, self.in_forms = key, holder, in_forms
        begins = rb'"' + key.encode() + rb'"\s*:\s*"'
        self.begins, self.whole = re.compile(begins), re.compile(begins + rb'([^"]*)"')  # base64 has no quotes


def _top(fields: dict[str, Any]) -> Holder | None:
    return Holder(fields) if isinstance(fields.get("image"), str) else None


FIELD = ImageKey("image", _top, in_forms=True)


@dataclass(frozen=True, slots=True)
class Sent(Generic[B]):
    """What has come. `upload`: its image, which is to be stored; leave it as a context manager."""

    body: B
    upload: Upload | None
    key: Keyed | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.upload is not None:
            self.upload.let_go()


class Bodies:
    """Reads them, no more large ones at once than there are places."""

    def __init__(
        self, places: Places, *, max_body_bytes: int, read_within_s: float = READ_WITHIN_S,
        json_limits: JsonLimits = ANY_JSON, max_fields: int = MAX_FIELDS, max_field_bytes: int = MAX_FIELD_BYTES,
    ) -> None:  # fmt: skip
        """What is taken.

        Args:
            places: For large ones.
            max_body_bytes: Of a body without its image.
            read_within_s: Of a large one.
            json_limits: Of what is JSON in it.
            max_fields: Of a form.
            max_field_bytes: Of a form's field.
        """
        self._places, self._most, self._read_within_s = places, max_body_bytes, read_within_s
        self._json_limits, self._max_fields, self._max_field_bytes = json_limits, max_fields, max_field_bytes

    async def read(
        self, kind: type[B], request: Request, user: UserUpdated, key: str | None = None, *, image: ImageKey = FIELD
    ) -> Sent[B]:
        """The body as a `kind`, with its image in it as the reference that its upload will have.

        Args:
            kind: What it is to be.
            request: Whose body was not read yet.
            user: Who sends it.
            key: The Idempotency-Key that came with it.
            image: Where in it an image may stand.

        Raises:
            Problem: It does not fit, is too large or too slow, or there is no place for it.
        """
        sent_key = checked_key(request, key)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_form, is_json = image.in_forms and content_type == FORM, _is_json(content_type)
        place: Place | None = None
        upload: Upload | None = None
        raw: bytes | bytearray = b""
        try:
            if is_form:
                place = await self._places.take(user.user_id)
                fields, upload = await self._form(request)
            else:
                raw, place = await self._bytes(request, user, reason=image.begins if is_json else None)
                fields, upload = await _json_fields(raw, self._most, image, is_json=is_json, limits=self._json_limits)
            if upload is not None:
                upload.place, place = place, None
            body = _validated(kind, fields)
            keyed = None
            if sent_key is not None:
                said = raw if upload is None and not is_form else _canonical(fields)
                keyed = Keyed(sent_key, fingerprint(request.method, request.scope["route"].path, said))
        except BaseException:
            if upload is not None:
                upload.let_go()
            raise
        finally:
            if place is not None:
                place.leave()
        return Sent(body, upload, keyed)

    async def _bytes(
        self, request: Request, user: UserUpdated, *, reason: re.Pattern[bytes] | None
    ) -> tuple[bytes | bytearray, Place | None]:
        """All of it; with a place once it is over the ordinary bound, where there is an image to be the reason."""
        raw, place = bytearray(), None
        try:
            async with asyncio.timeout(None) as limit:
                async for chunk in request.stream():
                    raw += chunk
                    if place is None and len(raw) > self._most:
                        self._check_reason(raw, reason)
                        place = await self._places.take(user.user_id)
                        limit.reschedule(asyncio.get_running_loop().time() + self._read_within_s)
        except BaseException as error:
            if place is not None:
                place.leave()
            _tell(error)
            raise
        return raw, place

    def _check_reason(self, raw: bytearray, reason: re.Pattern[bytes] | None) -> None:
        if reason is None or reason.search(raw) is None:
            raise _body_too_large(self._most)

    async def _form(self, request: Request) -> tuple[dict[str, Any], Upload | None]:
        try:
            async with asyncio.timeout(self._read_within_s):
                form = await request.form(max_files=1, max_fields=self._max_fields, max_part_size=self._max_field_bytes)
        except Exception as error:
            _tell(error)
            raise
        try:
            return await _form_fields(form, self._json_limits)
        finally:
            await form.close()


def _tell(error: BaseException) -> None:
    """Raise Problem where whoever sends a body that could not be read can do something about it."""
    if isinstance(error, TimeoutError):
        raise Problem(408, "body-too-slow", "the body did not come in time: send it faster, or less of it") from None
    if isinstance(error, ClientDisconnect):
        raise Problem(499, "caller-left", "the caller closed the connection") from None
    if isinstance(error, HTTPException) and error.status_code == 400:
        raise invalid_body([{"loc": (), "msg": f"the form cannot be read: {error.detail}"}]) from None


def _body_too_large(most: int) -> Problem:
    return Problem(413, "body-too-large", f"the body is larger than {most} bytes beside its image: send less")


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )


async def _json_fields(
    raw: bytes | bytearray, most: int, image: ImageKey, *, is_json: bool, limits: JsonLimits
) -> tuple[dict[str, Any], Upload | None]:  # fmt: skip
    """The fields of a body in JSON, and its image where that is in it: the fields then have its reference."""
    if not is_json:
        or_else = f", or as {FORM}" if image.in_forms else ""
        raise invalid_body([{"loc": (), "msg": f"send it as application/json{or_else}"}])
    word, begin, end = "", 0, 0
    if is_large := len(raw) > most:
        rest, word, begin, end = _apart(raw, most, image.whole)
    limits.check(rest if is_large else raw)
    fields = _parsed(rest if is_large else raw)
    holder = image.holder(fields)
    if is_large and (holder is None or holder.fields[image.key] != word):
        raise _body_too_large(most)
    if holder is None:
        return fields, None
    inline: str = holder.fields[image.key]

    def upload() -> Upload:
        if not is_large:
            return _of_text(inline.encode(errors="replace"))
        text = memoryview(raw)[begin:end]
        if raw.find(b"\\", begin, end) >= 0:  # some write / and + in escapes
            return _of_text(json.loads(b'"%b"' % bytes(text)).encode(errors="replace"))
        return _of_text(text)

    try:
        made = await _in_a_thread(end - begin if is_large else len(inline), upload)
    except Problem as problem:
        if holder.param is not None:
            problem.extra["param"] = holder.param
        raise
    holder.fields[image.key] = made.reference
    return fields, made


def _apart(raw: bytes | bytearray, most: int, whole: re.Pattern[bytes]) -> tuple[bytes, str, int, int]:
    """The body with a word of ours in its image's place, that word, and where the image stands."""
    found = max(whole.finditer(raw), key=lambda match: match.end(1) - match.start(1), default=None)
    if found is None or len(raw) - (found.end(1) - found.start(1)) > most:
        raise _body_too_large(most)
    begin, end = found.span(1)
    word = secrets.token_hex(16)  # that nobody can have written: it shows that the image stood where one belongs
    return bytes(raw[:begin]) + word.encode() + bytes(raw[end:]), word, begin, end


def _of_text(text: bytes | memoryview) -> Upload:
    return upload_of(decoded(text))


async def _in_a_thread(size: int, work: Callable[[], Upload]) -> Upload:
    try:
        return await asyncio.to_thread(work) if size > IN_A_THREAD_BYTES else work()
    except ValueError:  # of an escape that is none
        raise invalid_body([]) from None


def _parsed(raw: bytes | bytearray) -> dict[str, Any]:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise invalid_body([]) from None
    if not isinstance(fields, dict):
        raise invalid_body([{"loc": (), "msg": "must be a JSON object"}])
    return fields


async def _form_fields(form: FormData, limits: JsonLimits) -> tuple[dict[str, Any], Upload | None]:
    """The fields of a form, and its image where that is in it: as a file, or as text."""
    fields: dict[str, Any] = {}
    upload: Upload | None = None
    for name, value in form.multi_items():
        if name in fields:
            raise invalid_body([{"loc": (name,), "msg": "stands in the form more than once"}])
        if isinstance(value, UploadFile):
            if name != "image":
                raise invalid_body([{"loc": (name,), "msg": "is no file: the image's field is `image`"}])
            if (value.size or 0) > MAX_IMAGE_BYTES:
                raise too_large()
            content = await value.read()
            upload = await _in_a_thread(len(content), lambda content=content: upload_of(content))  # type: ignore[misc]  # it is bound at once
            fields[name] = None
        else:
            fields[name] = value if name in AS_THEY_ARE else _json_or_text(value, limits)
    image = fields.get("image")
    if upload is None and isinstance(image, str):
        upload = _of_text(image.encode(errors="replace"))
    if upload is not None:
        fields["image"] = upload.reference
    return fields, upload


def _json_or_text(value: str, limits: JsonLimits) -> Any:
    limits.check(value.encode(errors="replace"))
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _validated(kind: type[B], fields: dict[str, Any]) -> B:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid_body(found) from None


def _canonical(fields: dict[str, Any]) -> bytes:
    """The same for the same request, however it came; an image is what it shows."""

    def shown(value: object) -> object:
        return {"sha256": value.sha256} if isinstance(value, ImageReference) else str(value)

    return json.dumps(fields, sort_keys=True, default=shown).encode()
