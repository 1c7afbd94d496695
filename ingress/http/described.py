"""How bodies that may bring an image are described in the OpenAPI document: they are not read by FastAPI."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ingress.http.bodies import FORM

_REF = "#/components/schemas/{model}"
_described: list[type[BaseModel]] = []


def described_body(kind: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads a `kind`; where it has a field `image`, a form is taken as well."""
    _described.append(kind)
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": _REF.format(model=kind.__name__)}}}
    if "image" in kind.model_fields:
        fields: dict[str, dict[str, str]] = {name: {"type": "string"} for name in kind.model_fields}
        fields["image"] = {"type": "string", "format": "binary"}
        content[FORM] = {"schema": {"type": "object", "properties": fields}}
    return {"requestBody": {"required": is_required, "content": content}}


def described_schemas() -> dict[str, Any]:
    """The schemas that `described_body` refers to."""
    _, made = models_json_schema([(kind, "validation") for kind in _described], ref_template=_REF)
    schemas: dict[str, Any] = made.get("$defs", {})
    text = {"type": "string", "description": "Base64, or a data: URL, of a PNG, JPEG, WebP or GIF of up to 10 MB"}
    for kind in _described:
        if "image" not in kind.model_fields:
            continue
        field = schemas[kind.__name__]["properties"]["image"]
        references = field.pop("anyOf", None) or [{"$ref": field.pop("$ref")}]
        field["anyOf"] = [text, *references]
    return schemas
