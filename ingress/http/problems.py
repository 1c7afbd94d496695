"""Errors as clients see them: `application/problem+json` (RFC 9457), with a stable code and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ingress.openai_api import errors as openai_errors
from processors.errors import RetryableError
from schemas.events import RateLimit

CONTENT_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request", 401: "Not authenticated", 403: "Not allowed", 404: "Not found", 405: "Method not allowed",
    408: "The body came too slowly", 409: "Not as things stand", 413: "Body too large", 415: "Unsupported media type",
    422: "The body does not fit", 429: "Too many requests", 431: "Headers too large", 500: "Internal error",
    502: "The provider refused", 503: "Not available at the moment", 504: "No answer in time",
}  # fmt: skip
MAX_TOLD_ERRORS, MAX_PATH_CHARS = 20, 100  # the names in a path are the sender's
STANDING = "standing"  # in a request's state: tells where its user stands with their rate
NOT_FOUND = "there is no such thing, or it is somebody else's"


class Problem(Exception):  # noqa: N818 RFC 9457's word
    """An error that a client can do something about.

    Args:
        status: HTTP status.
        code: Stable, kebab-case.
        detail: A sentence that says what to do.
        headers: Besides the usual ones.
        extra: More fields of the body.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers, self.extra = status, code, detail, dict(headers or {}), extra


def not_found() -> Problem:
    """The same for what there is not and for what is not yours."""
    return Problem(404, "not-found", NOT_FOUND)


def rate_limit_headers(standing: RateLimit | None) -> dict[str, str]:
    """Source: draft-ietf-httpapi-ratelimit-headers-10."""
    if standing is None:
        return {}
    return {
        "RateLimit-Policy": f'"default";q={standing.limit};w={standing.window_s}',
        "RateLimit": f'"default";r={standing.remaining};t={standing.reset_s}',
    }


def problem_response(problem: Problem, scope: Scope | None) -> Response:
    """As it goes out, in answer to this request; None: nothing of it could be read."""
    path, request_id = (scope["path"], scope["state"]["request_id"]) if scope is not None else ("", "none")
    status, headers, more = problem.status, problem.headers, problem.extra
    if scope is not None and path.startswith(openai_errors.PATHS):
        status = openai_errors.status_of(status)
        more = {**more, "error": openai_errors.error_of(status, problem.code, problem.detail, more)}
        has_job = "job_id" in problem.extra or "Location" in headers
        is_keyed = any(name == b"idempotency-key" for name, _ in scope["headers"])
        if advice := openai_errors.should_retry(status, problem.code, has_job=has_job, is_keyed=is_keyed):
            headers = {**headers, "x-should-retry": advice}
    body = {
        "type": f"/problems/{problem.code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
        **more,
    }
    return Response(orjson.dumps(body, default=str), status, headers, CONTENT_TYPE)


def a_bug() -> Problem:
    """What was not foreseen; its traceback is in the log."""
    return Problem(500, "internal-error", "a bug on our side; the log has it under this request_id")


def install(app: FastAPI) -> None:
    """Answer every error this way; a bug is answered by `ingress.http.middleware`, outside of all that may have it."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> Response:
        return problem_response(error, request.scope)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        # What cannot be an id is the id of nothing.
        problem = not_found() if any(one["loc"][:1] == ("path",) for one in found) else invalid_body(found)
        return problem_response(problem, request.scope)

    @app.exception_handler(RetryableError)
    async def on_unavailable(request: Request, error: RetryableError) -> Response:
        problem = Problem(503, error.code, f"{error.message}; try again soon", headers={"Retry-After": "2"})
        return problem_response(problem, request.scope)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's, of a body that is not JSON at all
            return problem_response(invalid_body([]), request.scope)
        known = {
            401: ("not-authenticated", "send Authorization: Bearer <token>, from POST /auth/login"),
            404: ("not-found", NOT_FOUND),
            405: ("method-not-allowed", "this path has other methods: see /docs"),
            413: ("body-too-large", "the body is larger than MAX_BODY_BYTES allows: send less"),
        }
        code, detail = known.get(error.status_code, (f"http-{error.status_code}", str(error.detail)))
        problem = Problem(error.status_code, code, detail, headers=error.headers)
        return problem_response(problem, request.scope)

    @app.exception_handler(RecursionError)
    async def on_deep(request: Request, error: RecursionError) -> Response:  # noqa: ARG001 Starlette's signature
        return problem_response(invalid_body([]), request.scope)


def invalid_body(errors: Sequence[Any]) -> Problem:
    """422 with each field's path, without what stood in it."""
    told = [{"path": _path(error["loc"]), "message": error["msg"]} for error in errors[:MAX_TOLD_ERRORS]]
    detail = "; ".join(f"{error['path']}: {error['message']}" for error in told[:3]) or "the body is not JSON"
    return Problem(422, "invalid-body", detail, errors=told)


def _path(location: Sequence[Any]) -> str:
    """A field's place in the body, as far as people read it."""
    return ".".join(str(part)[:MAX_PATH_CHARS] for part in location if part != "body")[:MAX_PATH_CHARS] or "body"
