"""How bodies with images stand in the OpenAPI document."""

import json
import re

from ingress.app import create_app
from ingress.http.openapi import document
from settings import Settings
from tests.conftest import SECRET


def test_they_are_json_or_a_form_and_all_that_they_refer_to_is_there() -> None:
    app = create_app(
        Settings(
            _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
            jwt_secret_key=SECRET,
        )
    )  # fmt: skip
    made = document(app)
    schemas = made["components"]["schemas"]
    for path, name in (("/chat/", "ChatBody"), ("/chat/async", "AsyncChatRequest"), ("/payloads", "PayloadBody")):
        content = made["paths"][path]["post"]["requestBody"]["content"]
        assert list(content) == ["application/json", "multipart/form-data"]  # the first is what people get to see
        assert content["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}
        assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
        kinds = schemas[name]["properties"]["image"]["anyOf"]
        assert kinds[0]["type"] == "string"
        assert {"$ref": "#/components/schemas/ImageReference"} in kinds
    content = made["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/ChatCompletionBody"}}}
    assert {"messages", "cancel_on_disconnect"} <= schemas["ChatCompletionBody"]["properties"].keys()
    assert {"prompt", "stream", "callback_url"} <= {*schemas["ChatBody"]["properties"], "callback_url"}
    referred = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(made)))
    assert referred <= schemas.keys()
