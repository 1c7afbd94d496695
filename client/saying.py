"""`assistant say`, as people see it."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from client.api import AssistantClient, ClientError
from client.waiting import Waiting


def say(home: Path, body: dict[str, Any], output: Path, *, root_password: str | None) -> int:
    """Have a text said and write what comes to a file, which is whole or not there; returns the exit code."""
    errors = Console(stderr=True)
    waiting = Waiting(errors)
    part = output.with_name(f"{output.name}.part")
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client, waiting:
            with part.open("wb") as file:  # before anything is asked: a place that cannot be written to costs nothing
                result = client.ask(body, "/tts/async", on_stage=waiting.on_stage, on_wait=waiting.on_wait)
                for piece in client.stream(f"/jobs/{result['meta']['job_id']}/audio", {}):
                    file.write(piece)
            if part.stat().st_size != result["audio"]["size"]:
                raise ClientError("the audio broke off: ask again")  # noqa: TRY301 told like all that goes wrong here
            part.replace(output)
    except ClientError as error:
        errors.print(str(error), markup=False, highlight=False)
        part.unlink(missing_ok=True)
        return 1
    except OSError as error:
        errors.print(f"{output} cannot be written: {error.strerror}", markup=False, highlight=False, soft_wrap=True)
        part.unlink(missing_ok=True)
        return 1
    seconds, who = result["audio"]["seconds"], f"{result['provider']}, {result['speaker']}"
    errors.print(f"{output}: {seconds:.1f} s of {who}", markup=False, highlight=False, soft_wrap=True)
    return 0
