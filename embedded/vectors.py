"""Vectors on a machine without Qdrant: a small server over its engine, in a process of its own."""

import os
import sys
from pathlib import Path

from embedded.model import answers_http
from embedded.part import Part
from embedded.ports import HOST

ROOT = Path(__file__).parent.parent


def vectors_part(folder: Path, *, port: int, api_key: str | None) -> tuple[Part, str]:
    """The server as the supervisor runs it, and its address, for `QDRANT_URL`."""
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "embedded.vector_server", "--port", str(port), "--path", str(folder)]

    async def healthy() -> bool:
        return await answers_http(f"{address}/readyz")

    environment = {**os.environ, "QDRANT_API_KEY": api_key or ""}
    return Part("vectors", command, healthy, env=environment, cwd=ROOT, http=address), address
