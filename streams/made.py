"""What the roles beside gate, completion and sink are composed from."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from settings import Settings
from sinks.pool import Pool
from streams.encode import Encoder
from streams.live_providers import LiveProviders
from streams.providers import configured
from streams.vectors import Vectors
from vault.live import LiveSettings


@dataclass(frozen=True, slots=True)
class Made:
    """Of one worker; what is to be closed goes on `stack`.

    `vectors.opened()`: the repository of this process, the same one for all its roles.
    """

    settings: Settings
    pool: Pool | None
    encoder: Encoder
    live: LiveSettings
    stack: AsyncExitStack
    vectors: Vectors


def adapters_of(made: Made) -> dict[str, Any]:
    """Providers of this deployment with connections of this role's own; they follow the settings where these do."""
    adapters: dict[str, Any] = {name: one.make() for name, one in configured(made.settings).items()}
    if made.live.follows:
        live = LiveProviders(made.settings, adapters)
        adapters = dict(live.providers)
        made.live.subscribe(live.take)
    for adapter in adapters.values():
        made.stack.push_async_callback(adapter.close)
    return adapters
