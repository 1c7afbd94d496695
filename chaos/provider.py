"""The provider that jobs are sent to: the tests' stand-in of the OpenAI API, with every call in the ledger.

No two answers are the same, so a job that is asked for twice and shows both answers is seen.
"""

import argparse
import asyncio
import re
from pathlib import Path

import uvloop

from chaos.ledger import Ledger
from tests.stand_ins.openai_api import OpenAIStandIn

KEY = re.compile(r"^\[([\w.-]+)\]")


class LoggedProvider(OpenAIStandIn):
    """Writes each call down before it answers."""

    def __init__(self, ledger: Ledger, *, port: int) -> None:
        super().__init__(port=port)
        self._ledger = ledger

    def note_call(self, prompt: str) -> None:
        """As the stand-in's."""
        super().note_call(prompt)
        found = KEY.match(prompt)
        self._ledger.write("call", key=found.group(1) if found else prompt[:80], n=self.calls[prompt])

    def text(self, prompt: str) -> str:
        """As the stand-in's."""
        return f"Answer {self.calls[prompt]} to: {prompt[:200]}"


async def _main(file: Path, port: int) -> None:
    async with LoggedProvider(Ledger(file), port=port) as api:
        print(api.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    uvloop.run(_main(given.ledger, given.port))
