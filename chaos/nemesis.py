"""Breaks one thing after another, by a schedule that the seed decides; each time waits until the system is well."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from chaos.faults.registry import Fault, Scene, Void

INJECT_WITHIN_S = 300.0
CALM = 40  # jobs that wait, below which nothing is piled up
# In the short cut a fault meets few calls of the one before: what dies twice is done alone, and its neighbours wait.
CALM_SHORT = 10
CALM_WITHIN_S, CALM_STOCK_SHORT_S = 60.0, 10.0  # jobs that stock Faust has lost wait for ever


@dataclass
class Injection:
    """One fault as it was injected. `recovered_s`: from its heal until nothing was piled up."""

    number: int
    fault: Fault
    void: str | None = None
    in_flight: int = 0
    kills: int = 0
    pause_s: float = 0.0
    recovered_s: float | None = None
    not_calm: str = ""


@dataclass
class Nemesis:
    """`rounds` None: until told to stop."""

    scene: Scene
    faults: Sequence[Fault]
    seed: int
    rounds: int | None
    report: Callable[[str], None]
    calm_within_s: float = CALM_WITHIN_S
    rounds_done: int = 0
    done: list[Injection] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Rounds over all faults, each in an order of its own."""
        while self.rounds is None or self.rounds_done < self.rounds:
            for fault in schedule(self.faults, self.seed, self.rounds_done, short=self.scene.short):
                if stop.is_set():
                    return
                await self._inject(fault)
            self.rounds_done += 1

    async def _inject(self, fault: Fault) -> None:
        scene, monitor = self.scene, self.scene.monitor
        injection = Injection(len(self.done) + 1, fault)
        scene.random = Random(f"{self.seed}/{injection.number}/{fault.row}")
        monitor.mark()
        self.done.append(injection)
        injection.in_flight = scene.load.sent - scene.load.acked + monitor.waiting + await monitor.busy()
        kills_before = scene.system.kills
        scene.ledger.write("fault", phase="inject", number=injection.number, row=fault.row, name=fault.name,
                           in_flight=injection.in_flight)  # fmt: skip
        self.report(f"{injection.number:>3}  row {fault.row:<4}{fault.name}")
        try:
            await asyncio.wait_for(fault.inject(scene), INJECT_WITHIN_S)
        except Void as why:
            injection.void = str(why)
        except TimeoutError:
            injection.void = f"not over within {INJECT_WITHIN_S:.0f} s"
            for member in scene.system.members:
                if member.lives and not member.kept:  # it was for this fault alone
                    scene.system.kill(member)
        healed_at = time.monotonic()
        scene.ledger.write("fault", phase="heal", number=injection.number, row=fault.row, void=injection.void)
        injection.not_calm = await self._calm(healed_at)
        if not injection.not_calm:
            injection.recovered_s = time.monotonic() - healed_at
        injection.kills = scene.system.kills - kills_before
        injection.pause_s = monitor.pause_s

    async def _calm(self, since: float) -> str:
        """Wait until all processes are ready and nothing is piled up; what is not so in time."""
        if problem := await self.scene.system.ready(within_s=CALM_WITHIN_S):
            return problem
        while self.scene.monitor.waiting > (CALM_SHORT if self.scene.short else CALM):
            if time.monotonic() - since > self.calm_within_s:
                return f"{self.scene.monitor.waiting} jobs wait"
            await asyncio.sleep(0.2)
        return ""


def schedule(faults: Sequence[Fault], seed: int, round_number: int, *, short: bool) -> list[Fault]:
    """The order of one round. What can be done once only comes first in the first round, so that it shows."""
    ordered = [fault for fault in faults if not fault.once for _ in range(1 if short else fault.times)]
    Random(f"schedule/{seed}/{round_number}").shuffle(ordered)
    return [*(fault for fault in faults if fault.once and round_number == 0), *ordered]
