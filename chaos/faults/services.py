"""Kafka and Postgres: killed, restarted, frozen, locked, cut off."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence

import asyncpg
import psutil

from chaos.faults.registry import Scene, fault
from embedded.errors import EmbeddedError
from embedded.running import Running

SESSION_TIMEOUT_S = 6.0
FROZEN_S = 15.0
START_TRIES = 20


@fault("19", "kill -9 of the broker, started again")
async def broker_killed(scene: Scene) -> None:
    """What was acknowledged is there; whoever got no answer was not told 202."""
    await asyncio.to_thread(scene.services.kafka.kill)
    scene.system.kills += 1
    await asyncio.sleep(3)
    await start_again(scene.services.kafka)


@fault("20", "broker frozen")
async def broker_frozen(scene: Scene) -> None:
    """Longer than sessions last: every group is gone when it wakes."""
    await _freeze([scene.services.kafka.pid], FROZEN_S)


@fault("29", "Postgres stopped at once, 2 s", short=True)
async def postgres_restarted(scene: Scene) -> None:
    """Jobs are accepted and answered all the same; rows come later."""
    await _restart(scene, signal.SIGQUIT, away_s=2)


@fault("29b", "Postgres stopped at once, 60 s")
async def postgres_away(scene: Scene) -> None:
    """The sink waits; nothing is committed, nobody restarts anything."""
    await _restart(scene, signal.SIGQUIT, away_s=10 if scene.short else 60)


@fault("30", "Postgres's sessions ended every 2 s, then kill -9")
async def sessions_ended(scene: Scene) -> None:
    """A statement may have been done although its session was lost."""
    for _ in range(4):
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(scene.services.postgres.dsn, timeout=3)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            )
            await connection.close()
        await asyncio.sleep(2)
    scene.system.kills += 1
    await _restart(scene, signal.SIGKILL, away_s=1)


@fault("31", "Postgres frozen, its sockets open")
async def postgres_frozen(scene: Scene) -> None:
    """Nothing refuses and nothing answers: only deadlines help."""
    server = psutil.Process(scene.services.postgres.pid)
    await _freeze([server.pid, *(child.pid for child in server.children(recursive=True))], FROZEN_S)


@fault("33", "tables locked 15 s")
async def tables_locked(scene: Scene) -> None:
    """Bounded by the lock timeout; tried again."""
    connection = await asyncpg.connect(scene.services.postgres.dsn, timeout=5)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE jobs, webhooks IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(FROZEN_S)
    finally:
        await connection.close()


async def _restart(scene: Scene, number: signal.Signals, *, away_s: float) -> None:
    postgres = scene.services.postgres
    server = psutil.Process(postgres.pid)
    children = server.children(recursive=True)
    server.send_signal(number)
    await asyncio.to_thread(psutil.wait_procs, [server, *children], 10)
    await asyncio.to_thread(postgres.kill)  # it is gone; what waited for it is told
    await asyncio.sleep(away_s)
    await start_again(postgres)


async def start_again(running: Running) -> None:
    """Return once it answers; its port may be taken for a moment."""
    for attempt in range(START_TRIES):
        try:
            await asyncio.to_thread(running.start)
        except EmbeddedError:
            if attempt == START_TRIES - 1:
                raise
            await asyncio.sleep(1)
        else:
            return


async def _freeze(pids: Sequence[int], seconds: float) -> None:
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).send_signal(number)
        if number == signal.SIGSTOP:
            try:
                await asyncio.sleep(seconds)
            except BaseException:
                for pid in pids:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        psutil.Process(pid).send_signal(signal.SIGCONT)
                raise
