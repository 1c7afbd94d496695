"""Workers: killed, stopped, restarted without end, frozen, blocked, starved, named twice."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from chaos.faults.registry import NO_PRIVILEGE, Scene, Void, fault
from chaos.system import DRAIN_S, Member

HELD_CALLS, HELD_S = 64, 4.0
LONG_CALLS = 24
STORM_S, STORM_SHORT_S = 30.0, 12.0
SESSION_TIMEOUT_S = 6.0
CGROUP_CPU, CGROUP_MEMORY = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/memory")
MORE_BYTES = 16 * 2**20  # that a worker may take beside what it has
LARGE_JOBS, LARGE_CHARS, LARGE_S = 400, 18_000, 8.0
CPU_SHARE = 0.05


@fault("1", "kill -9 of a worker with 64 calls open", short=True, times=6)
async def killed_in_a_call(scene: Scene) -> None:
    """The heirs ask again for what was open, and only for that."""
    scene.load.burst(HELD_CALLS, delay_s=HELD_S)
    await scene.in_flight(HELD_CALLS // 2)
    scene.system.kill(scene.random.choice(scene.system.of("completion")))


@fault("3", "kill -9 of all workers at once", short=True, times=2)
async def all_workers(scene: Scene) -> None:
    """Nobody is left to take over; the next ones begin at what was committed."""
    await scene.in_flight(1)
    for member in scene.system.workers:
        scene.system.kill(member)


@fault("4a", "storm of restarts, SIGTERM")
async def storm_of_stops(scene: Scene) -> None:
    """Drained each time: nothing is asked for twice."""
    await _storm(scene, SIGTERM)


@fault("4b", "storm of restarts, kill -9", times=2)
async def storm_of_kills(scene: Scene) -> None:
    """Each death costs one session timeout."""
    await _storm(scene, SIGKILL)


async def _storm(scene: Scene, number: Signals) -> None:
    until = asyncio.get_running_loop().time() + (STORM_SHORT_S if scene.short else STORM_S)
    while asyncio.get_running_loop().time() < until:
        there = scene.system.workers
        if there:
            scene.system.kill(scene.random.choice(there), number)
        await asyncio.sleep(scene.random.uniform(1.5, 5.0))


@fault("5", "SIGTERM with a call longer than the drain, then kill -9")
async def drain_missed(scene: Scene) -> None:
    """The long one comes again, the others were finished in time."""
    for _ in range(LONG_CALLS):
        scene.load.send(delay_s=2.5 * DRAIN_S, via="rest", timeout_s=120)
    await scene.in_flight(LONG_CALLS)
    victim = scene.random.choice(scene.system.of("completion"))
    popen = victim.popen
    scene.system.kill(victim, SIGTERM)
    await asyncio.sleep(DRAIN_S / 2)
    if popen is not None and popen.poll() is None:
        scene.system.note_kill(victim, "SIGKILL")
        popen.kill()


@fault("6", "SIGSTOP past the session timeout, then SIGCONT")
async def zombies(scene: Scene) -> None:
    """One of each role goes on working with partitions that are no longer its own."""
    scene.load.burst(HELD_CALLS, delay_s=HELD_S)
    await scene.in_flight(HELD_CALLS // 2)
    frozen = [scene.random.choice(there) for role in ("gate", "completion", "sink") if (there := scene.system.of(role))]
    for member in frozen:
        scene.system.pause(member)
    try:
        await asyncio.sleep(2 * SESSION_TIMEOUT_S)
    finally:
        for member in frozen:
            scene.system.resume(member)


@fault("7", "event loop blocked while heartbeats go on")
async def blocked_loop(scene: Scene) -> None:
    """The watchdog ends it; Kafka alone would wait for ever."""
    member = scene.system.add(
        "completion", kept=False, FAIL="generate_completion.before_call:block@3", STALL_TIMEOUT="8"
    )
    popen = member.popen
    if popen is None or await _ended(popen.poll, within_s=60) is None:
        scene.system.kill(member)
        raise Void("it got nothing to do, or the watchdog did not end it")


@fault("8", "out of memory: a worker with 16 MiB to spare, and large jobs")
async def out_of_memory(scene: Scene) -> None:
    """The kernel kills it in whatever it does; its jobs go to others, and none is blamed."""
    victim = scene.random.choice(scene.system.of("completion"))
    popen = victim.popen
    group = CGROUP_MEMORY / f"chaos-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(MORE_BYTES))  # what it has stays with where it was
        (group / "cgroup.procs").write_text(str(popen.pid if popen else 0))
    except OSError:
        raise Void(NO_PRIVILEGE) from None
    scene.system.expect(victim)
    for _ in range(LARGE_JOBS):
        text = "".join(chr(0x4E00 + scene.random.randrange(5000)) for _ in range(LARGE_CHARS))
        scene.load.send(delay_s=LARGE_S, via="rest", mark=" " + text)
        await asyncio.sleep(0.01)
    killed = popen is not None and await _ended(popen.poll, within_s=30) is not None
    for pid in (group / "cgroup.procs").read_text().split():
        (CGROUP_MEMORY / "cgroup.procs").write_text(pid)
    group.rmdir()
    if not killed:
        scene.system.expect(victim, no_more=True)
        raise Void("it had memory enough")
    scene.system.note_kill(victim, "out of memory")


@fault("9", "a worker at 5 % of a CPU")
async def starved(scene: Scene) -> None:
    """Slow is not dead: no takeover without end."""
    victim = scene.random.choice(scene.system.of("completion"))
    group = CGROUP_CPU / f"chaos-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text(str(int(100_000 * CPU_SHARE)))
        (group / "cgroup.procs").write_text(str(victim.popen.pid if victim.popen else 0))
    except OSError:
        raise Void(NO_PRIVILEGE) from None
    try:
        await asyncio.sleep(15)
    finally:
        (group / "cpu.cfs_quota_us").write_text("-1")
        for pid in (group / "cgroup.procs").read_text().split():
            (CGROUP_CPU / "cgroup.procs").write_text(pid)
        group.rmdir()


@fault("16", "two workers of one static name")
async def named_twice(scene: Scene) -> None:
    """Kafka gives the name to the one that joined last; the other hears of it by a heartbeat, and ends."""
    twins: list[Member] = []
    for _ in range(2):
        twin = scene.system.add("completion", kept=False, WORKER_ID="twin")
        twins.append(twin)
        await scene.system.ready(twin, within_s=30)
    await asyncio.sleep(2 * SESSION_TIMEOUT_S)
    for twin in twins:
        if twin.lives:
            scene.system.kill(twin, SIGTERM)
    for twin in twins:
        if twin.popen is not None:
            await _ended(twin.popen.poll, within_s=DRAIN_S + 10)


async def _ended(poll: Callable[[], int | None], *, within_s: float) -> int | None:
    deadline = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < deadline:
        if (code := poll()) is not None:
            return code
        await asyncio.sleep(0.05)
    return None
