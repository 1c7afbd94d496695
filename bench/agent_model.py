"""A stand-in of a provider whose model has agents take steps until their goal's number of them is reached.

A goal is `N steps, ...`. As a process: `python -m bench.agent_model [--delay-ms N]`; `GET /v1/gaps` tells how long
it was from each answer to the next question of the same run, in seconds.
"""

import argparse
import asyncio
import json
import re
import time
from collections import Counter
from typing import Any

import uvloop

from tests.stand_ins.openai_api import OpenAIStandIn

_GOAL, _STEP = re.compile(r"^Goal: ((\d+) steps.*)$", re.MULTILINE), re.compile(r"^Step \d+: ", re.MULTILINE)
OBSERVED = "The state of the order is known to the warehouse. It was packed on Monday, and has left on Tuesday. "


class AgentModel(OpenAIStandIn):
    """The server."""

    def __init__(self, *, delay_s: float) -> None:
        super().__init__(delay_s=delay_s)
        self._answered: dict[str, float] = {}
        self._steps: Counter[str] = Counter()
        self._gaps: list[float] = []

    def note_call(self, prompt: str) -> None:
        """See `ModelApi.note_call`; prompts are not counted, for each is another one."""
        if (found := _GOAL.search(prompt)) and (answered := self._answered.get(found.group(1))):
            self._gaps.append(time.perf_counter() - answered)

    def text(self, prompt: str) -> str:
        """The next step: a long enough text to be shortened, or the end."""
        found = _GOAL.search(prompt)
        if found is None:
            return super().text(prompt)
        goal, wanted = found.group(1), int(found.group(2))
        self._answered[goal] = time.perf_counter()
        self._steps[goal] += 1
        is_last = self._steps[goal] >= wanted
        given = {"answer": goal} if is_last else {"text": OBSERVED * 5 + f"This was look {self._steps[goal]}."}
        action = "finish" if is_last else "summary"
        return json.dumps({"thought": "one look more", "action": action, "action_input": given})

    def other(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """See `ModelApi.other`. Gaps are told once."""
        if path != "/v1/gaps":
            return super().other(method, path, body)
        told, self._gaps = self._gaps, []
        return {"gaps": told}


async def _main(delay_s: float) -> None:
    async with AgentModel(delay_s=delay_s) as api:
        print(api.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-ms", type=int, default=0)
    uvloop.run(_main(parser.parse_args().delay_ms / 1000))
