"""Row 13: whoever releases events that were put off is killed while it does; several do it at once."""

import asyncio

from chaos.failpoints import POINTS
from chaos.faults.commit_points import arm, dies
from chaos.faults.registry import Scene, Void, fault
from chaos.load import Wanted

PUT_OFF = 150
FAILS = (2, 6)  # answers 503 before one that is right; each two of them are a wait
KILLS, KILL_EVERY_S = 3, 2.0
DUE = "SELECT count(*) FROM due_events"
WITHIN_S = 90.0


@fault("13", "kill -9 of the releaser of due rows, before and after its sending; several at once")
async def releaser_killed(scene: Scene) -> None:
    """What was leased is released again once its lease is over; who gets it twice knows it, and pays for nothing."""
    points = [point for point in POINTS["sink"] if point.startswith("release_due")]
    armed = [arm(scene, "sink", point, scene.random.randint(1, 2)) for point in points]
    await scene.system.ready(*armed, within_s=30)
    for _ in range(PUT_OFF):
        mark = f" [fails={scene.random.randint(*FAILS)}]"
        scene.load.send(delay_s=0, via="rest", mark=mark, wanted=Wanted(once=True))
    was_put_off = await scene.until(f"SELECT ({DUE}) > 0", within_s=15)
    ended = asyncio.gather(*(dies(scene, member) for member in armed))
    for _ in range(KILLS):
        await asyncio.sleep(KILL_EVERY_S)
        if there := scene.system.of("sink"):
            scene.system.kill(scene.random.choice(there))
    if not any(await ended) or not was_put_off:
        raise Void("no point was passed")
    await scene.until(f"SELECT ({DUE}) = 0", within_s=WITHIN_S)
