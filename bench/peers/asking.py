"""What every worker does with a job: one call of the stand-in by the OpenAI SDK, with its cheapest client."""

import os
from functools import cache

from openai import AsyncOpenAI, DefaultAioHttpClient, OpenAI


@cache
def _client() -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=os.environ["OPENAI_BASE_URL"], api_key="stub", max_retries=0, http_client=DefaultAioHttpClient()
    )


@cache
def _blocking_client() -> OpenAI:
    return OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="stub", max_retries=0)


async def ask(prompt: str) -> str:
    """The answer's text."""
    reply = await _client().chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return reply.choices[0].message.content or ""


def ask_blocking(prompt: str) -> str:
    """The same for workers that have no event loop."""
    reply = _blocking_client().chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return reply.choices[0].message.content or ""
