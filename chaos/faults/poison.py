"""Row 10: an event that kills each process that takes it."""

from chaos.checker import POISONED
from chaos.failpoints import POISON
from chaos.faults.registry import Scene, Void, fault
from chaos.load import Wanted

ROLES = ("gate", "completion")
NEIGHBOURS, NEIGHBOUR_S = 40, 0.2
WITHIN_S = 120.0
ENDED = "SELECT count(*) FROM jobs WHERE error->>'code' = $1"


@fault("10", "an event that kills its process, one per role")
async def poison(scene: Scene) -> None:
    """A dead letter after three deaths; what was beside it is done."""
    before = await scene.asked(ENDED, POISONED) or 0
    kills_before = scene.system.kills
    for role in ROLES:
        scene.load.burst(NEIGHBOURS // 2, delay_s=NEIGHBOUR_S)
        scene.load.send(delay_s=0, via="rest", mark=f" {POISON.format(role=role)}", wanted=Wanted(POISONED))
        scene.load.burst(NEIGHBOURS // 2, delay_s=NEIGHBOUR_S)
    ended = await scene.until(f"SELECT ({ENDED}) >= $2", POISONED, before + len(ROLES), within_s=WITHIN_S)
    if not ended and scene.system.kills == kills_before:
        raise Void("nobody took it")
