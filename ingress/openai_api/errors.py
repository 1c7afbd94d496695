"""What is added to an error where OpenAI's clients call, so that they raise the right one and do not ask twice.

The body stays a problem (RFC 9457); its member `error` is what those clients read.
Source: openai-python, `_base_client.py`: 408, 409, 429 and 5xx are tried again unless `x-should-retry` says otherwise.
"""

from collections.abc import Mapping
from typing import Any

from processors.completion.fit_generation import OR_ELSE

PATHS = "/v1/"
TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
}  # fmt: skip
OPEN = {"outcome-unknown", "internal-error"}  # whether there is a job is not known


def status_of(status: int) -> int:
    """OpenAI has one status for all that is wrong with a body."""
    return 400 if status == 422 else status


def error_of(status: int, code: str, detail: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """`{message, type, param, code}`; `param` is the field that does not fit, where it is one."""
    kind = "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error")
    message = detail.removesuffix(OR_ELSE)  # there is no such field in this API
    return {"message": message, "type": kind, "param": _param(extra), "code": code}


def should_retry(status: int, code: str, *, has_job: bool, is_keyed: bool) -> str | None:
    """What `x-should-retry` says; None: nothing, the client's own rule is right.

    Args:
        status: Of the answer.
        code: Of the problem.
        has_job: It tells of a job: one was made, or may have been.
        is_keyed: The request has an Idempotency-Key: the same again is the same job.

    Returns:
        `true` where nothing was accepted, or where it is not known and the key makes sure that there is one job;
        `false` where a second try would be a second job, or with a key the same answer again. Nothing for what no
        client tries again, and for 429: then nothing was done, and `Retry-After` says when it may be.
    """
    if status == 429 or (status < 500 and status not in (408, 409)):
        return None
    if code in OPEN:
        return "true" if is_keyed else "false"
    return "true" if status == 503 and not has_job else "false"


def _param(extra: Mapping[str, Any]) -> str | None:
    if "param" in extra:
        return str(extra["param"])
    errors, parameters = extra.get("errors"), extra.get("parameters")
    if errors:
        path: str = errors[0]["path"]
        return path if path != "body" else None
    return str(parameters[0]).partition(".")[0] if parameters else None
