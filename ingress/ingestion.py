"""`POST /ingestion/ingest`: a file that is to be found and quoted from then on."""

from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from ingress.chat import ANSWERS, as_job, failed_call
from ingress.files import LARGEST_UPLOAD_BYTES, source_of
from ingress.http.bodies import FORM
from ingress.http.leaving import left
from ingress.http.problems import invalid_body, rate_limit_headers
from ingress.services import CostingUser, Found
from ingress.submitting.idempotency import REPLAYED, Keyed, KeyHeader, checked_key, fingerprint
from schemas.request_fields import ProviderName
from schemas.requests import DocumentRequest, SourceName

router = APIRouter(tags=["documents"])
BODY = {"requestBody": {"required": True, "content": {FORM: {"schema": {
    "type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}},
}}}}}  # fmt: skip
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it can be found; or it was there already (`unchanged`)",
          "content": {"application/json": {"example": {
              "status": "ok", "document_id": "...", "num_chunks": 42, "version_id": "...", "pages": 17,
              "meta": {"provider": "local", "job_id": "..."}}}}},
    202: {"description": "With `wait=false`: the job; poll Location",
          "content": {"application/json": {"example": {"job_id": "..."}}}},
    400: {"description": "No such provider, or it makes no vectors; those that do are listed"},
    413: {"description": "The file is larger than MAX_UPLOAD_MB, or what is in it is more than is taken"},
    422: {"description": "There is no file; or it is broken, encrypted, empty, scanned, or of a type that is not read"},
    429: {"description": "Rate limit, or as much of yours is kept as may be; see Retry-After"},
    502: ANSWERS[502], 503: ANSWERS[503], 504: ANSWERS[504],
}  # fmt: skip


@router.post(
    "/ingestion/ingest", responses=RESPONSES, openapi_extra=BODY, max_body_size=LARGEST_UPLOAD_BYTES,
    response_class=Response,
)  # fmt: skip
async def ingest(
    user: CostingUser,
    found: Found,
    request: Request,
    source: Annotated[
        SourceName | None,
        Query(description="What it is called; the file's own name otherwise. The same again is its newer version"),
    ] = None,
    wait: Annotated[bool, Query(description="Answer when all of it can be found; else at once, with the job")] = True,
    provider: Annotated[ProviderName | None, Query(description="Who makes its vectors")] = None,
    key: KeyHeader = None,
) -> Response:
    """Ingest a document: PDF, DOCX, PPTX, EPUB, HTML, Markdown or text, told by its content.

    To close the connection while it waits is to cancel the job (not with an Idempotency-Key).
    """
    sent_key = checked_key(request, key)
    found.submissions.check_ahead(user, (provider,) if provider else ())
    file = await found.files.receive(user, request, is_for_job=True)
    try:
        name = source or source_of(file.name)
        if not name.strip():
            raise invalid_body([{"loc": ("source",), "msg": "the file has no name: say what it is called"}])
        asked = DocumentRequest(document=file.reference, source=name, provider=provider)
        keyed = None
        if sent_key is not None:
            said = orjson.dumps([name, provider, file.sha256])
            keyed = Keyed(sent_key, fingerprint(request.method, request.scope["route"].path, said))
        if not wait:
            return as_job(*await found.submissions.accepted(user, asked, callback_url=None, keyed=keyed, upload=file))
        leaving = partial(left, request) if key is None else None
        job_id, outcome = await found.submissions.answered(user, asked, keyed=keyed, left=leaving, upload=file)
    finally:
        if not file.is_claimed:
            await found.files.forget(user, file)
    headers = rate_limit_headers(outcome.rate_limit) | (REPLAYED if outcome.replayed else {})
    if outcome.status != "completed":
        raise failed_call(job_id, outcome)
    return Response(orjson.dumps(outcome.result), 200, headers, "application/json")
