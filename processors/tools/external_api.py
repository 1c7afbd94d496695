"""Tool: a call to a host that the operator has named."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode
from uuid import uuid5

from pydantic import Field

from processors.agents.ports import OutwardCalls
from processors.tools.tool import Tool, ToolArguments, ToolContext, ToolResult
from schemas.request_fields import Text

MAX_URL_CHARS, MAX_BODY_CHARS, MAX_PARAMETERS = 2_000, 16_000, 20
Parameter = Annotated[Text, Field(max_length=500)]


class ExternalApiArguments(ToolArguments):
    """What it takes."""

    method: Literal["GET", "POST"] = "GET"
    url: Annotated[
        Text, Field(min_length=8, max_length=MAX_URL_CHARS, pattern=r"^https?://[^\s]+$", description="With its scheme")
    ]
    params: Annotated[
        dict[Parameter, Parameter],
        Field(default_factory=dict, max_length=MAX_PARAMETERS, description="Added to the query"),
    ]
    body: Annotated[dict[str, Any] | None, Field(description="Of a POST: sent as JSON")] = None


class ExternalApi(Tool[ExternalApiArguments]):
    """One GET or POST. A POST that is sent again has the same `Idempotency-Key`."""

    name: ClassVar[str] = "external_api"
    arguments = ExternalApiArguments
    is_outward: ClassVar[bool] = True

    def __init__(self, calls: OutwardCalls) -> None:
        self._calls = calls
        self.description = describe(calls.hosts)

    async def run(self, arguments: ExternalApiArguments, context: ToolContext) -> ToolResult:
        """See `Tool.run`."""
        if arguments.method == "GET" and arguments.body is not None:
            return ToolResult(("A GET has no body: use params, or POST.",))
        url = arguments.url
        if arguments.params:
            url += ("&" if "?" in url else "?") + urlencode(arguments.params)
        headers = {"accept": "application/json, text/plain;q=0.9, */*;q=0.1", "user-agent": "assistant-stream"}
        body = None
        if arguments.method == "POST":
            body = json.dumps(arguments.body or {}, ensure_ascii=False, sort_keys=True).encode()
            if len(body) > MAX_BODY_CHARS:
                return ToolResult((f"The body is longer than {MAX_BODY_CHARS} bytes: send less.",))
            # Of the call, and not of the run: the same call of the same step is the same one however often it is made.
            call = f"{context.step} {url} {body.decode()}"
            headers |= {"content-type": "application/json", "idempotency-key": str(uuid5(context.job.job_id, call))}
        reply = await self._calls.call(arguments.method, url, body=body, headers=headers)
        cut = " (cut)" if reply.is_cut else ""
        head = f"Status {reply.status_code}, {reply.content_type or 'no content type'}{cut}:"
        return ToolResult((head, reply.text), is_untrusted=True)


def describe(hosts: Sequence[str]) -> str:
    """What a model is told of it."""
    return f"Call a web API by GET or POST. Only these hosts can be called: {', '.join(hosts)}."
