"""What a fault is, and which there are."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

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
    """

    row: str
    name: str
    inject: Inject
    short: bool = False
    once: bool = False
    times: int = 1


FAULTS: list[Fault] = []


def fault(
    row: str, name: str, *, short: bool = False, once: bool = False, times: int = 1
) -> Callable[[Inject], Inject]:  # fmt: skip
    """Declare a row; as `Fault`."""

    def declare(inject: Inject) -> Inject:
        FAULTS.append(Fault(row, name, inject, short, once, times))
        return inject

    return declare


def all_faults() -> list[Fault]:
    """Every row, in the order of the matrix."""
    from chaos.faults import commit_points, edges, network, poison, services, workers  # noqa: F401 they declare themselves

    unique = {found.row: found for found in FAULTS}
    return sorted(unique.values(), key=lambda found: (int("".join(filter(str.isdigit, found.row))), found.row))
