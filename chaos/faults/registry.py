"""What a fault is, and which there are."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import asyncpg

from chaos.helper import Helper
from chaos.ledger import Ledger
from chaos.load import Load
from chaos.monitor import Monitor
from chaos.services import Services
from chaos.system import System


class Void(Exception):  # noqa: N818 it is no error: the row says so and goes on
    """The fault could not be injected, or nothing was in flight: the row proves nothing."""


NO_PRIVILEGE = "no privilege"


@dataclass
class Scene:
    """What a fault works with. `random` is seeded for this injection alone."""

    system: System
    load: Load
    monitor: Monitor
    provider: Helper
    receiver: Helper
    services: Services
    ledger: Ledger
    random: Random
    short: bool

    async def asked(self, query: str, *args: Any) -> Any:
        """One value of the database, straight from it; None while it does not answer."""
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(self.services.postgres.dsn, timeout=5)
            try:
                return await connection.fetchval(query, *args, timeout=5)
            finally:
                await connection.close()
        return None

    async def until(self, query: str, *args: Any, within_s: float) -> bool:
        """Wait until a query says true; False if it does not."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not await self.asked(query, *args):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def in_flight(self, count: int, *, within_s: float = 10.0) -> int:
        """Wait until the provider has so many calls open; how many it has then.

        Raises:
            Void: It did not come to one.
        """
        deadline = asyncio.get_running_loop().time() + within_s
        while (busy := await self.monitor.busy()) < count:
            if asyncio.get_running_loop().time() > deadline:
                if busy == 0:
                    raise Void("nothing was in flight")
                break
            await asyncio.sleep(0.05)
        return busy


Inject = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One row. `inject` breaks, waits and heals.

    Attributes:
        row: Its number in docs/chaos.md.
        name: For the table.
        inject: Returns when it is healed.
        short: Part of the short cut.
        once: Not again in later rounds, since it cannot be undone.
        times: In each round of the full form.
        fills_a_disk: Kafka and Postgres need disks of their own.
    """

    row: str
    name: str
    inject: Inject
    short: bool = False
    once: bool = False
    times: int = 1
    fills_a_disk: bool = False


FAULTS: list[Fault] = []


def fault(
    row: str, name: str, *, short: bool = False, once: bool = False, times: int = 1, fills_a_disk: bool = False
) -> Callable[[Inject], Inject]:  # fmt: skip
    """Declare a row; as `Fault`."""

    def declare(inject: Inject) -> Inject:
        FAULTS.append(Fault(row, name, inject, short, once, times, fills_a_disk))
        return inject

    return declare


def all_faults() -> list[Fault]:
    """Every row, in the order of the matrix."""
    from chaos.faults import (  # noqa: F401 they declare themselves
        commit_points,
        disaster,
        disks,
        edges,
        network,
        poison,
        releaser,
        services,
        topics,
        workers,
    )

    unique = {found.row: found for found in FAULTS}
    return sorted(unique.values(), key=lambda found: (int("".join(filter(str.isdigit, found.row))), found.row))
