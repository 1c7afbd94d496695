"""Looking for passages in one's documents, without an answer made from them.

A search is a job like any other on the topics, but it leaves no row: it is over with the call. So it has no
Idempotency-Key either: to ask again is to look again.
"""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from ingress.chat import ANSWERS, failed_call, json_reply
from ingress.http.leaving import left
from ingress.http.problems import invalid_body, rate_limit_headers
from ingress.rag import MISMATCH
from ingress.services import CostingUser, Found, Services
from schemas.events import UserUpdated
from schemas.requests import MAX_FILTERS, MAX_TOP_K, SearchMode, SearchRequest

router = APIRouter(tags=["documents"])

PASSAGE = {
    "document": "Bees steer by the sun.", "score": 0.83, "source": "bees.pdf", "page": 12,
    "document_id": "3f0e0f5c-6b1e-5d0f-9a57-6f8f3a1b2c3d", "chunk": 31, "section": "Flight > Orientation",
}  # fmt: skip


def _responses(example: Any) -> dict[int | str, dict[str, Any]]:
    return {
        **{status: ANSWERS[status] for status in (429, 502, 503, 504)},
        200: {
            "description": "Passages of your documents, best first",
            "content": {"application/json": {"example": example}},
        },
        400: {"description": MISMATCH},
    }


TextQuery = Annotated[str, Query(min_length=1, max_length=20_000)]
Provider = Annotated[
    str | None, Query(description="Who makes the query's vector: the one that made the documents'", max_length=32)
]
Mode = Annotated[SearchMode, Query(description="By meaning (`dense`), by words (`keyword`), or by both")]
Sources = Annotated[list[str] | None, Query(description="Only in documents of these names", max_length=MAX_FILTERS)]
Documents = Annotated[list[UUID] | None, Query(description="Only in these documents", max_length=MAX_FILTERS)]
Seconds = Annotated[float | None, Query(ge=1, le=120, description="Seconds that the search may take")]


@router.post("/embeddings/search", responses=_responses([PASSAGE]))
async def embeddings_search(
    user: CostingUser, found: Found, request: Request, query: TextQuery,
    top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = 3, provider: Provider = None, mode: Mode = "dense",
    source: Sources = None, document_id: Documents = None, timeout: Seconds = None,
) -> Response:  # fmt: skip
    """The passages whose meaning is nearest to the query's; the score is the cosine of their vectors."""
    asked = _asked(query, top_k, provider, mode, source, document_id, timeout, name="query")
    result, headers = await _found(asked, user, found, request)
    return json_reply(200, result["results"], headers)


@router.get(
    "/search/", responses=_responses({"query": "How do bees find their way?", "k": 5, "results": [PASSAGE]})
)  # fmt: skip
async def search(
    user: CostingUser, found: Found, request: Request, q: TextQuery,
    k: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = 5, mode: Mode = "hybrid", provider: Provider = None,
    source: Sources = None, document_id: Documents = None, timeout: Seconds = None,
) -> Response:  # fmt: skip
    """Passages of your documents that fit, by their words and their meaning; scores compare within one answer only."""
    asked = _asked(q, k, provider, mode, source, document_id, timeout, name="q")
    result, headers = await _found(asked, user, found, request)
    return json_reply(200, result, headers)


def _asked(
    query: str, top_k: int, provider: str | None, mode: SearchMode, sources: list[str] | None,
    documents: list[UUID] | None, timeout: float | None, *, name: str,
) -> SearchRequest:  # fmt: skip
    among = {"sources": sources or None, "documents": documents or None}
    fields = {
        "query": query, "top_k": top_k, "provider": provider, "mode": mode, "timeout": timeout,
        "among": among if any(among.values()) else None,
    }  # fmt: skip
    try:
        return SearchRequest.model_validate(fields)
    except ValidationError as error:
        names = {"query": name, "among": "source"}
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = [{**one, "loc": ("query", names.get(str(one["loc"][0]), one["loc"][0]))} for one in found]
        raise invalid_body(told) from None


async def _found(
    asked: SearchRequest, user: UserUpdated, services: Services, request: Request
) -> tuple[dict[str, Any], dict[str, str]]:
    job_id, outcome = await services.submissions.answered(user, asked, left=partial(left, request))
    if outcome.status != "completed" or outcome.result is None:
        raise failed_call(job_id, outcome)
    return outcome.result, rate_limit_headers(outcome.rate_limit)
