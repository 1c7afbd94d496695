"""The OpenAPI document: FastAPI's, with errors described as they really come (RFC 9457)."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from ingress.http.described import described_schemas
from ingress.http.problems import CONTENT_TYPE
from ingress.openai_api import errors as openai_errors

FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")


class FieldProblem(BaseModel):
    """One field that does not fit."""

    path: str
    message: str


class ProblemBody(BaseModel):
    """Body of every error; `code` is stable, `detail` says what to do."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] = []
    job_id: str | None = None
    retry_after_s: float | None = None
    providers: list[str] = []
    error: dict[str, str | None] | None = None  # /v1 only: what OpenAI's clients read


def document(app: FastAPI) -> dict[str, Any]:
    """What `/openapi.json` answers; made once by FastAPI, and the same at every call."""
    made: dict[str, Any] = app.openapi()
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    if "Problem" in schemas:
        return made
    schemas |= described_schemas()
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _describe(path, operation)
    for name in FASTAPIS_OWN:
        schemas.pop(name, None)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs")
    schemas["Problem"] = problem
    return made


def _describe(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    asked = [parameter for parameter in operation.get("parameters", ()) if parameter["in"] != "path"]
    if not asked and "requestBody" not in operation:
        responses.pop("422", None)  # what is no id is a 404
    if "{" in path:
        responses["404"] = {"description": "There is no such thing, or it is somebody else's"}
    if path == "/auth/login":
        responses["401"] = {"description": "The user or the password is wrong"}
    if "security" in operation:
        responses["401"] = {"description": "No token, or one that is no longer good"}
    if path.startswith(openai_errors.PATHS) and (invalid := responses.pop("422", None)):
        responses.setdefault("400", invalid)
    responses["default"] = {"description": "Any other refusal: `code` is stable, `detail` says what to do"}
    for status, response in responses.items():
        if status >= "400":  # and "default"
            response["content"] = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        if status == "422":
            response["description"] = "The body or a parameter does not fit; each field by its path"
