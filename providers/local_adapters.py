"""The adapters that the embedded model's server has loaded, as it tells of them itself.

Source: llama.cpp, tools/server/README.md, "GET /lora-adapters".
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from processors.errors import PermanentError
from providers.failures import refused, senseless, unreachable

NAME = "local"
MISSING = "adapter-missing"
# At the place 0 of a server that has adapters is one that changes nothing (embedded/adapters.py): a request that names
# it is answered by the bare model, and never from what a slot has kept of another adapter's answers.
BARE = [{"id": 0, "scale": 1.0}]


class _Loaded(BaseModel):
    id: Annotated[int, Field(ge=0)]
    path: str


_LOADED = TypeAdapter(list[_Loaded])


async def loaded_adapters(client: httpx.AsyncClient, base_url: str) -> Mapping[str, int]:
    """By the name of their file, each one's place in the server's list; none while it loads its model.

    `base_url` ends in `/v1`.

    Raises:
        RetryableError, PermanentError: It does not say.
    """
    try:
        reply = await client.get(f"{base_url.rstrip('/').removesuffix('/v1')}/lora-adapters")
    except httpx.HTTPError:
        raise unreachable(NAME) from None
    if reply.status_code == 503:
        return {}
    if reply.status_code != 200:
        raise refused(NAME, reply.status_code, reply.headers)
    try:
        found = _LOADED.validate_json(reply.content)
    except ValidationError:
        raise senseless(NAME) from None
    return {PurePath(one.path).stem: one.id for one in found}


def missing() -> PermanentError:
    """It has not loaded an adapter that there is."""
    return PermanentError(
        MISSING,
        f"{NAME} has not loaded this adapter: it keeps those that were trained last (MAX_LOCAL_ADAPTERS). Train it "
        "anew, or leave mode lora out",
    )
