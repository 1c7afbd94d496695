"""Payloads: images and files that are uploaded before they are asked about, for events and for more than one prompt."""

from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response

from ingress.access.standings import check_quarantine
from ingress.files import LARGEST_UPLOAD_BYTES
from ingress.http.bodies import FORM, LARGEST_BODY_BYTES
from ingress.http.described import described_body
from ingress.http.file_forms import FIELD
from ingress.http.peeking import first_field, with_at_most
from ingress.http.problems import invalid_body, not_found
from ingress.services import CostingUser, CurrentUser, Found, Services
from schemas.events import UserUpdated
from schemas.request_fields import RequestBody
from schemas.requests import ImageReference

router = APIRouter(prefix="/payloads", tags=["payloads"])


class PayloadBody(RequestBody):
    """Body of `POST /payloads`."""

    image: ImageReference  # as it is read: the upload's own


def _described() -> dict[str, Any]:
    described = described_body(PayloadBody)
    form = described["requestBody"]["content"][FORM]["schema"]
    form["properties"][FIELD] = {"type": "string", "format": "binary", "description": "In place of an image"}
    return described


@router.post(
    "", status_code=201, openapi_extra=_described(), max_body_size=LARGEST_UPLOAD_BYTES,
    responses={
        201: {"description": "The reference: `image` of an image, `document` of a file",
              "content": {"application/json": {"example": {
                  "image": {"payload_id": "...", "media_type": "image/png", "size": 68, "sha256": "..."},
                  "expires_at": "2026-01-17T03:04:05Z",
              }}}},
        400: {"description": "It is no image that is taken"},
        413: {"description": "The image is larger than 10 MB, or the file than MAX_UPLOAD_MB"},
        422: {"description": "There is no image and no file in the body, or the file is empty"},
        429: {"description": "As much of yours is kept as may be, or too many large bodies come at once"},
        503: {"description": "It cannot be kept at the moment"},
    },
)  # fmt: skip
async def upload(user: CostingUser, found: Found, request: Request) -> Response:
    """Keep an image or a file for 15 days.

    `image` of the answer is `image` of a prompt: in `/chat/`, or in an event. A form with the field `file` is a file,
    and `document` of the answer is `document` of an event of kind `document`.
    """
    check_quarantine(user)
    found.submissions.count(user)
    field, request = await first_field(request)
    if field == FIELD:
        return await _upload_file(user, found, request)
    request = with_at_most(request, LARGEST_BODY_BYTES)
    with await found.bodies.read(PayloadBody, request, user) as sent:
        if sent.upload is None:
            raise invalid_body([{"loc": ("image",), "msg": "must be the image itself"}])
        until = await found.images.keep(user, sent.upload, job_id=None)
    return _kept({"image": sent.upload.reference.model_dump(mode="json"), "expires_at": until})


async def _upload_file(user: UserUpdated, found: Services, request: Request) -> Response:
    file = await found.files.receive(user, request, is_for_job=False)
    return _kept({"document": file.reference.model_dump(mode="json"), "expires_at": file.until})


def _kept(answer: dict[str, Any]) -> Response:
    return Response(orjson.dumps(answer, option=orjson.OPT_UTC_Z), 201, media_type="application/json")


@router.delete("/{payload_id}", status_code=204)
async def delete(payload_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Delete an own payload; a job that still needs it ends with `no-such-payload`."""
    if not await found.images.delete(user, payload_id):
        raise not_found()
    return Response(status_code=204)
