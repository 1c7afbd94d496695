"""`python -m bench.agent_tasks [--local]`: how many of thirty goals an agent reaches.

With a scripted model that plays perfectly, which shows that the stages, the tools and the checkers are not what goals
fail by; and with `--local` the embedded SmolLM2-135M-Instruct, whose steps are forced into shape by a JSON schema.
"""

import argparse
import asyncio
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.agent_tasks.runs import Bounds, PerfectModel, Reached, api, make_tools, run
from bench.agent_tasks.tasks import TASKS
from embedded.model import model_part
from embedded.ports import free_port
from providers.local import make_local

MODEL, START_S = "SmolLM2-135M-Instruct", 120.0
STEPS, STEP_TOKENS = 4, 120  # of the embedded model: it seldom says less of its own accord


async def reached(provider: Any, bounds: Bounds, *, is_told: bool = False) -> list[Reached]:
    """All goals, one after another."""
    found: list[Reached] = []
    async with api() as address, make_tools() as tools:
        for task in TASKS:
            one = await run(task, provider, tools=tools, address=address, bounds=bounds)
            found.append(one)
            if is_told:
                mark = "reached" if one.is_reached else "       "
                print(f"{mark} {task.kind:<10} {one.steps} steps, {one.calls} calls, {one.seconds:.0f} s")
                print(f"        {task.goal[:110]!r}\n        {one.said[:110]!r}", flush=True)
    return found


@asynccontextmanager
async def local() -> AsyncIterator[Any]:
    """The embedded model, with nothing else beside it."""
    with tempfile.TemporaryDirectory() as folder:
        part, url = model_part(port=free_port(), slots=1, alias=MODEL, adapters=Path(folder), most_adapters=0)
        process = subprocess.Popen(  # noqa: ASYNC220 nothing else runs here yet
            part.argv, env=dict(part.env), cwd=part.cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        provider = make_local(base_url=url, model=MODEL, embedding_url=None, embedding_model="", connections=1)
        try:
            async with asyncio.timeout(START_S):
                while not await part.healthy():
                    await asyncio.sleep(0.2)
            yield provider
        finally:
            await provider.close()
            process.terminate()
            process.wait(10)


def told(name: str, found: list[Reached]) -> str:
    """A line: how many of all, and of each kind."""
    of, right = Counter(one.task.kind for one in found), Counter(one.task.kind for one in found if one.is_reached)
    kinds = ", ".join(f"{kind} {right[kind]}/{count}" for kind, count in of.items())
    return f"{name}: {right.total()} of {of.total()} ({kinds})"


def table(found: list[Reached]) -> str:
    """As the docs have it: of each kind of goals how many were reached, why the others were not, and the time."""
    lines = ["| goals | reached | why not | steps | questions | a question |", "|---|---|---|---|---|---|"]
    for kind in dict.fromkeys(one.task.kind for one in found):
        these = [one for one in found if one.task.kind == kind]
        why = Counter(_why(one) for one in these if not one.is_reached)
        calls, seconds = sum(one.calls for one in these), sum(one.seconds for one in these)
        lines.append(
            f"| {kind} | {sum(one.is_reached for one in these)} of {len(these)} | "
            f"{', '.join(f'{count} {code}' for code, count in why.most_common())} | "
            f"{sum(one.steps for one in these)} | {calls} | {seconds / max(calls, 1):.1f} s |"
        )
    return "\n".join(lines)


def _why(one: Reached) -> str:
    return one.said.strip("[]") if one.said.startswith("[") else "another answer"


async def _main(*, with_local: bool, timeout_s: float) -> None:
    print(told("a perfect model", await reached(PerfectModel(TASKS), Bounds())), flush=True)
    if with_local:
        bounds = Bounds(steps=STEPS, step_tokens=STEP_TOKENS, timeout_s=timeout_s)
        async with local() as provider:
            found = await reached(provider, bounds, is_told=True)
            print(told(MODEL, found), table(found), sep="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.agent_tasks")
    parser.add_argument("--local", action="store_true", help="ask the embedded model, too, which takes minutes")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds that one question may take")
    given = parser.parse_args()
    asyncio.run(_main(with_local=given.local, timeout_s=given.timeout))
