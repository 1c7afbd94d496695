"""The network between clients and servers, by the proxy."""

import asyncio

import httpx

from chaos.faults.registry import Scene, Void, fault

ON_OFF_S, TIMES = 5.0, 3
RESETS_S, SLOW_S, MUTE_S, CUT_S = 10.0, 20.0, 10.0, 20.0


async def set_mode(scene: Scene, name: str, mode: str) -> None:
    """What the network to a service is like from now on; as in `chaos.proxy`."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        (await client.post(f"{scene.services.network.url}/{name}/{mode}")).raise_for_status()


async def _acts(scene: Scene, name: str) -> int:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        return int((await client.get(f"{scene.services.network.url}/{name}")).content)


async def _for_a_while(scene: Scene, name: str, mode: str, seconds: float) -> None:
    before = await _acts(scene, name)
    await set_mode(scene, name, mode)
    try:
        await asyncio.sleep(seconds)
    finally:
        await set_mode(scene, name, "pass")
    if await _acts(scene, name) == before:
        raise Void("nothing went over the network")


@fault("22", "clients cut off from the broker, 5 s on, 5 s off")
async def partitioned(scene: Scene) -> None:
    """Each time sessions are near their end; offsets do not fork."""
    for _ in range(TIMES):
        await _for_a_while(scene, "kafka", "refuse", ON_OFF_S)
        await asyncio.sleep(ON_OFF_S)


@fault("22b", "one-way: the broker hears, and is not heard")
async def one_way(scene: Scene) -> None:
    """What was sent is there; whoever sent it does not know."""
    await _for_a_while(scene, "kafka", "mute", MUTE_S)


@fault("23", "connections to the broker reset every 200 ms")
async def resets(scene: Scene) -> None:
    """Sent again by idempotent producers."""
    await _for_a_while(scene, "kafka", "reset", RESETS_S)


@fault("24", "100-1,000 ms and 1 Mbit/s to the broker")
async def slow(scene: Scene) -> None:
    """Deadlines hold; nobody retries without end."""
    await _for_a_while(scene, "kafka", "slow", SLOW_S)


@fault("32", "Postgres: request done, reply lost")
async def reply_lost(scene: Scene) -> None:
    """A COMMIT may have been done: written again, into rows that are there."""
    await _for_a_while(scene, "postgres", "cut", CUT_S)
