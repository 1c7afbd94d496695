"""`POST /v1/embeddings`: OpenAI's API, through the same topics as every other job.

Source: OpenAI's API reference, "Create embeddings". Its own client asks for base64 where it is not told otherwise.
"""

import struct
from base64 import b64decode
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from ingress.chat import ANSWERS, failed_call
from ingress.http.leaving import left
from ingress.http.problems import Problem, rate_limit_headers
from ingress.openai_api.bodies import OpenAIBody
from ingress.openai_api.model_names import Model
from ingress.services import CostingUser, Found
from ingress.submitting.idempotency import REPLAYED, Key
from processors.completion.fit_generation import UNSUPPORTED
from schemas.request_fields import ModelName, Text, Timeout
from schemas.requests import MAX_EMBEDDED_CHARS, MAX_EMBEDDED_TEXTS, EmbeddingRequest

router = APIRouter(tags=["openai"])

EXAMPLE = {
    "object": "list", "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}  # fmt: skip
RESPONSES: dict[int | str, dict[str, Any]] = {
    **ANSWERS,
    200: {"description": "A vector for each text", "content": {"application/json": {"example": EXAMPLE}}},
    400: {"description": "What does not fit or is not offered; `error.param` says which"},
    404: {"description": "No such model, or one that makes no vectors; the message lists those that do"},
}
INPUT_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "examples": ["A text."]}


class EmbeddingsBody(OpenAIBody):
    """Body of `POST /v1/embeddings`; `timeout` is ours."""

    model: ModelName
    input: Annotated[Any, Field(json_schema_extra=INPUT_SCHEMA)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Annotated[Text, Field(max_length=512, description="Kept in the job's metadata")] | None = None
    timeout: Timeout | None = None

    def request(self, model: Model) -> EmbeddingRequest:
        """The job's request to this model. Raises Problem where something does not fit or is not offered."""
        if "dimensions" in (self.model_extra or ()):
            detail = "a model's vectors have one length here: leave dimensions out"
            raise Problem(400, UNSUPPORTED, detail, param="dimensions")
        self.refuse_unknown()
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise _wrong("a text, or a list of texts: tokens are not taken")
        if len(texts) > MAX_EMBEDDED_TEXTS:
            raise _wrong(f"at most {MAX_EMBEDDED_TEXTS} texts: send the others in calls of their own")
        if sum(map(len, texts)) > MAX_EMBEDDED_CHARS:
            raise _wrong(f"at most {MAX_EMBEDDED_CHARS} characters in all")
        if not all(text.replace("\x00", "").strip() for text in texts):
            raise _wrong("each text must hold more than white space")
        return EmbeddingRequest(texts=tuple(texts), provider=model.provider, timeout=self.timeout)


@router.post("/v1/embeddings", responses=RESPONSES)
async def embeddings(body: EmbeddingsBody, user: CostingUser, found: Found, key: Key, request: Request) -> Response:
    """OpenAI's API. To close the connection is to cancel the job (not with an Idempotency-Key)."""
    asked = body.request(found.models().find_embedding(body.model))
    job_id, outcome = await found.submissions.answered(
        user, asked, keyed=key, left=partial(left, request) if key is None else None,
        metadata={"user": body.user} if body.user else {},
    )  # fmt: skip
    if outcome.status != "completed" or outcome.result is None:
        raise failed_call(job_id, outcome)
    headers = {"Location": f"/jobs/{job_id}", **rate_limit_headers(outcome.rate_limit)}
    headers |= REPLAYED if outcome.replayed else {}
    content = orjson.dumps(told(outcome.result, as_numbers=body.encoding_format == "float"))
    return Response(content, 200, headers, "application/json")


def told(result: dict[str, Any], *, as_numbers: bool) -> dict[str, Any]:
    """The body of an answer, from the result of a job of kind `embedding`."""
    packed: list[str] = result["embeddings"]
    vectors: list[Any] = [_numbers(vector) for vector in packed] if as_numbers else list(packed)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)],
        "model": result["model"],
        "usage": result.get("usage") or {"prompt_tokens": 0, "total_tokens": 0},  # clients count on it
    }


def _numbers(packed: str) -> list[float]:
    raw = b64decode(packed)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def _wrong(why: str) -> Problem:
    return Problem(400, "invalid-body", f"input: {why}", param="input")
