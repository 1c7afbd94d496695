"""Payloads: images that are uploaded before they are asked about, for events and for more than one prompt."""

from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response

from ingress.bodies import LARGEST_BODY_BYTES
from ingress.described import described_body
from ingress.problems import invalid_body, not_found
from ingress.services import CostingUser, CurrentUser, Found
from ingress.standings import check_quarantine
from schemas.requests import ImageReference, RequestBody

router = APIRouter(prefix="/payloads", tags=["payloads"])


class PayloadBody(RequestBody):
    """Body of `POST /payloads`."""

    image: ImageReference  # as it is read: the upload's own


@router.post(
    "", status_code=201, openapi_extra=described_body(PayloadBody), max_body_size=LARGEST_BODY_BYTES,
    responses={
        201: {"description": "The reference", "content": {"application/json": {"example": {
            "image": {"payload_id": "...", "media_type": "image/png", "size": 68, "sha256": "..."},
            "expires_at": "2026-01-17T03:04:05Z",
        }}}},
        400: {"description": "It is no image that is taken"},
        413: {"description": "It is larger than 10 MB"},
        422: {"description": "There is no image in the body"},
        429: {"description": "As much of yours is kept as may be, or too many large bodies come at once"},
        503: {"description": "It cannot be kept at the moment"},
    },
)  # fmt: skip
async def upload(user: CostingUser, found: Found, request: Request) -> Response:
    """Keep an image for 15 days. `image` of the answer is `image` of a prompt: in `/chat/`, or in an event."""
    check_quarantine(user)
    found.submissions.count(user)
    with await found.bodies.read(PayloadBody, request, user) as sent:
        if sent.upload is None:
            raise invalid_body([{"loc": ("image",), "msg": "must be the image itself"}])
        until = await found.images.keep(user, sent.upload, job_id=None)
    answer = {"image": sent.upload.reference.model_dump(mode="json"), "expires_at": until}
    return Response(orjson.dumps(answer, option=orjson.OPT_UTC_Z), 201, media_type="application/json")


@router.delete("/{payload_id}", status_code=204)
async def delete(payload_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Delete an own payload; a job that still needs it ends with `no-such-payload`."""
    if not await found.images.delete(user, payload_id):
        raise not_found()
    return Response(status_code=204)
