"""The same HTTP in front of each, `python -m bench.peers.front PEER PORT`: takes jobs, and tells their answers.

Its shapes are those of our own ingress, as far as the load looks at them.
"""

import importlib
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Queue(Protocol):
    """What each peer has to offer, as its documentation has it."""

    async def start(self) -> None: ...

    async def put(self, job_id: str, prompt: str) -> None: ...

    async def ended(self, job_ids: Sequence[str]) -> list[str]: ...

    async def answer(self, job_id: str) -> str | None: ...


class Asked(BaseModel):
    """A job."""

    prompt: str


def app_of(queue: Queue) -> FastAPI:
    """Routes over a queue."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await queue.start()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/chat/async", status_code=202)
    async def chat(asked: Asked) -> dict[str, str]:
        job_id = str(uuid.uuid4())
        await queue.put(job_id, asked.prompt)
        return {"job_id": job_id}

    @app.post("/ended")
    async def ended(job_ids: list[str]) -> list[str]:
        return await queue.ended(job_ids)

    @app.get("/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any]:
        answer = await queue.answer(job_id)
        if answer is None:
            return {"status": "pending"}
        return {"status": "completed", "result": {"result": {"text": answer}}}

    return app


if __name__ == "__main__":
    chosen = importlib.import_module(f"bench.peers.{sys.argv[1]}")
    uvicorn.run(app_of(chosen.QUEUE), port=int(sys.argv[2]), log_level="warning", access_log=False, loop="uvloop")
