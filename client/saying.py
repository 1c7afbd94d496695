"""`assistant say`, as people see it."""

import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from client.api import AssistantClient, ClientError
from client.commands import STAGES


def say(home: Path, body: dict[str, Any], output: Path, *, root_password: str | None) -> int:
    """Have a text said and write what comes to a file, which is whole or not there; returns the exit code."""
    errors = Console(stderr=True)
    began = time.monotonic()
    spinner = errors.status("asking") if errors.is_terminal else nullcontext()
    part = output.with_name(f"{output.name}.part")
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client, spinner as shown:

            def on_stage(stage: str) -> None:
                if shown is not None:
                    shown.update(f"{STAGES.get(stage, stage)} · {time.monotonic() - began:.0f} s")

            def on_wait(left: int, of: int) -> None:
                if shown is not None:
                    shown.update(f"rate limit: {left} s")
                elif left == of:  # one line for whoever reads a log
                    errors.print(f"rate limit: waiting {of} s", highlight=False)

            with part.open("wb") as file:  # before anything is asked: a place that cannot be written to costs nothing
                result = client.ask(body, "/tts/async", on_stage=on_stage, on_wait=on_wait)
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
