"""Row 2: a process ends at each point at which something is sent, written or committed."""

import asyncio

from chaos.failpoints import BESIDE_A_SINK, POINTS
from chaos.faults.registry import Scene, Void, fault
from chaos.system import Member

WORKER_ROLES = ("gate", "completion", "sink")
SAMPLED = 1  # points per role in the short cut
PASSINGS = (1, 12)
DIES_WITHIN_S = 60.0  # of being ready


@fault("2", "kill -9 at a commit point", short=True)
async def commit_points(scene: Scene) -> None:
    """One more worker per role, each with a point armed; it takes partitions, works, and ends there."""
    points = {role: [point for point in POINTS[role] if not point.startswith(BESIDE_A_SINK)] for role in WORKER_ROLES}
    for there in points.values():
        scene.random.shuffle(there)
    waves = SAMPLED if scene.short else max(map(len, points.values()))
    passed = 0
    for wave in range(waves):
        armed = [
            arm(scene, role, there[wave], scene.random.randint(*PASSINGS))
            for role, there in points.items()
            if wave < len(there)
        ]
        passed += sum(await asyncio.gather(*(dies(scene, member) for member in armed)))
    if not passed:
        raise Void("no point was passed")


def arm(scene: Scene, role: str, point: str, passing: int, action: str = "exit") -> Member:
    """One more process of a role, with a failpoint."""
    scene.ledger.write("armed", point=point, action=action, passing=passing)
    return scene.system.add(role, kept=False, FAIL=f"{point}:{action}@{passing}")


async def dies(scene: Scene, member: Member) -> bool:
    """True once it has ended at its point; ends it where it never came there."""
    popen = member.popen
    await scene.system.ready(member)  # or dead before
    deadline = asyncio.get_running_loop().time() + DIES_WITHIN_S
    while popen is not None and popen.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            scene.system.kill(member)
            return False
        await asyncio.sleep(0.05)
    return True
