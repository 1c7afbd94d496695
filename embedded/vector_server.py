"""Qdrant's REST API over Qdrant's engine, for one machine: `python -m embedded.vector_server --port N --path DIR`.

As much of it as `vectors.qdrant` asks for; all else is refused with a sentence. See docs/adr/0012.
"""

import argparse
import asyncio
import contextlib
import hmac
import importlib.metadata
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson
import uvicorn
from pydantic import BaseModel, ValidationError
from qdrant_client.http import models
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from embedded.errors import EmbeddedError
from embedded.vector_store import VectorStore
from embedded.vector_wire import RefusedError

logger = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
HOST = "127.0.0.1"
MAX_BODY_BYTES = 33_554_432
MAX_WAITING = 256
SETTLE_EVERY_S = 1.0
KNOWN_PARAMETERS = {"wait", "timeout"}  # a write is always waited for
OPEN = ("/healthz", "/livez", "/readyz")


class VectorServer:
    """The routes. The engine holds Python's lock while it works, so one thread does all its work, in turn."""

    def __init__(self, folder: Path, *, api_key: str | None) -> None:
        """Raises EmbeddedError where the folder cannot be had."""
        self._store, self._key = VectorStore(folder), api_key
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._waiting = 0
        collection = "/collections/{name}"
        self.app = Starlette(
            routes=[
                Route("/", self._root),
                *(Route(path, self._healthy) for path in OPEN),
                Route("/collections", self._answer(self._list)),
                Route(collection, self._answer(self._info)),
                Route(collection, self._answer(self._create), methods=["PUT"]),
                Route(collection, self._answer(self._drop), methods=["DELETE"]),
                Route(f"{collection}/exists", self._answer(self._exists)),
                Route(f"{collection}/index", self._answer(self._index), methods=["PUT"]),
                Route(f"{collection}/points", self._answer(self._upsert), methods=["PUT"]),
                Route(f"{collection}/points/query", self._answer(self._query), methods=["POST"]),
                Route(f"{collection}/points/query/batch", self._answer(self._query_batch), methods=["POST"]),
                Route(f"{collection}/points/delete", self._answer(self._delete), methods=["POST"]),
                Route(f"{collection}/points/count", self._answer(self._count), methods=["POST"]),
                Route(f"{collection}/points/scroll", self._answer(self._scroll), methods=["POST"]),
                Route("/{rest:path}", self._answer(self._unknown), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        settling = asyncio.create_task(self._settle())
        yield
        settling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await settling
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def _settle(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            try:
                await self._in_turn(lambda: self._store.settle(now=time.monotonic()))
            except Exception:  # a full disk: said, and tried again
                logger.exception("what was written cannot be put into its place yet")

    # --- the frame of a call ---

    def _answer(self, work: Callable[[Request, bytes], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            began = time.monotonic()
            try:
                self._check(request)
                result = await work(request, await _body(request))
            except RefusedError as error:
                headers = {"Retry-After": "1"} if error.status == 429 else None
                return _json({"status": {"error": str(error)}, "time": 0.0}, error.status, headers)
            except ValidationError as error:
                told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
                return _json({"status": {"error": f"Format error: {told}"[:500]}, "time": 0.0}, 400)
            except Exception:  # whatever the engine raises: its caller is told, and the server goes on
                logger.exception("%s %s", request.method, request.url.path)
                return _json({"status": {"error": "an error in the server: see its log"}, "time": 0.0}, 500)
            return _json({"result": result, "status": "ok", "time": time.monotonic() - began})

        return answer

    def _check(self, request: Request) -> None:
        given = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is not None and not hmac.compare_digest(given.encode(), self._key.encode()):
            raise RefusedError(401, "Must provide an API key or an Authorization bearer token")
        if unknown := set(request.query_params) - KNOWN_PARAMETERS:
            raise RefusedError(501, f"this server does not know the parameters {', '.join(sorted(unknown))}")

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise RefusedError(429, "too many calls wait")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    # --- calls ---

    async def _root(self, _: Request) -> Response:
        version = importlib.metadata.version("qdrant-client")  # whose API this is
        return _json({"title": "assistant-stream's vectors, by Qdrant's engine", "version": version})

    async def _healthy(self, _: Request) -> Response:
        return PlainTextResponse("healthz check passed")

    async def _unknown(self, request: Request, _: bytes) -> Any:
        raise RefusedError(501, f"this server does not know {request.method} {request.url.path}: run Qdrant for it")

    async def _list(self, _: Request, __: bytes) -> Any:
        return {"collections": [{"name": name} for name in self._store.names()]}

    async def _exists(self, request: Request, _: bytes) -> Any:
        return {"exists": self._store.has(_name(request))}

    async def _info(self, request: Request, _: bytes) -> Any:
        return await self._in_turn(lambda: self._store.info(_name(request)))

    async def _create(self, request: Request, body: bytes) -> Any:
        given = models.CreateCollection.model_validate_json(body)
        await self._in_turn(lambda: self._store.create(_name(request), given))
        return True

    async def _drop(self, request: Request, _: bytes) -> Any:
        return await self._in_turn(lambda: self._store.drop(_name(request)))

    async def _index(self, request: Request, body: bytes) -> Any:
        given = models.CreateFieldIndex.model_validate_json(body)
        await self._in_turn(lambda: self._store.create_index(_name(request), given))
        return DONE

    async def _upsert(self, request: Request, body: bytes) -> Any:
        await self._in_turn(lambda: self._store.upsert(_name(request), body))
        return DONE

    async def _delete(self, request: Request, body: bytes) -> Any:
        await self._in_turn(lambda: self._store.delete(_name(request), body))
        return DONE

    async def _query(self, request: Request, body: bytes) -> Any:
        given = models.QueryRequest.model_validate_json(body)
        return (await self._in_turn(lambda: self._store.query(_name(request), [given])))[0]

    async def _query_batch(self, request: Request, body: bytes) -> Any:
        given = models.QueryRequestBatch.model_validate_json(body)
        return await self._in_turn(lambda: self._store.query(_name(request), given.searches))

    async def _count(self, request: Request, body: bytes) -> Any:
        given = models.CountRequest.model_validate_json(body)
        return {"count": await self._in_turn(lambda: self._store.count(_name(request), given))}

    async def _scroll(self, request: Request, body: bytes) -> Any:
        given = models.ScrollRequest.model_validate_json(body)
        return await self._in_turn(lambda: self._store.scroll(_name(request), given))


DONE = {"operation_id": 0, "status": "completed"}


def _name(request: Request) -> str:
    return str(request.path_params["name"])


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"a body has at most {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def main() -> None:
    """Serve until SIGTERM, on this machine only. The key is in `QDRANT_API_KEY`; without one anybody here may ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", type=Path, required=True)
    given = parser.parse_args()
    try:
        server = VectorServer(given.path, api_key=os.environ.get("QDRANT_API_KEY") or None)
    except EmbeddedError as error:
        sys.exit(str(error))
    uvicorn.run(server.app, host=HOST, port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
