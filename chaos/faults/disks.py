"""Rows 26 and 34: no room is left where Kafka or Postgres writes, and then there is room again."""

import asyncio
from pathlib import Path

import psutil

from chaos.faults.registry import NO_PRIVILEGE, Scene, Void, fault
from chaos.faults.services import start_again
from embedded.running import Running

FULL_S = 12.0
NOTICED_WITHIN_S = 40.0
NO_ROOM = "No space left on device"


@fault("26", "the broker's disk full", fills_a_disk=True)
async def broker_disk_full(scene: Scene) -> None:
    """A broker whose only disk is full ends; started again once there is room, it has all that it acknowledged."""
    await _full(scene, "kafka", scene.services.kafka)


@fault("34", "Postgres's disk full", fills_a_disk=True)
async def postgres_disk_full(scene: Scene) -> None:
    """Refused writes are no refused rows: they wait."""
    await _full(scene, "postgres", scene.services.postgres)


async def _full(scene: Scene, name: str, service: Running) -> None:
    disk, log = scene.services.disks.get(name), scene.services.logs / f"{name}.log"
    if disk is None:
        raise Void(NO_PRIVILEGE)
    before = log.stat().st_size
    await asyncio.to_thread(disk.fill)
    try:
        noticed = await _noticed(service, log, after=before)
        if noticed:
            await asyncio.sleep(FULL_S)
    finally:
        disk.free()
    if not _lives(service):
        await asyncio.to_thread(service.kill)  # what waited for it is told
        await start_again(service)
    if not noticed:
        raise Void("nobody wrote that much")


async def _noticed(service: Running, log: Path, *, after: int) -> bool:
    """It says so, or has ended of it without a word, as a broker does that has no logger."""
    until = asyncio.get_running_loop().time() + NOTICED_WITHIN_S
    while asyncio.get_running_loop().time() < until:
        with log.open("rb") as file:
            file.seek(after)
            if NO_ROOM.encode() in file.read() or not _lives(service):
                return True
        await asyncio.sleep(0.2)
    return False


def _lives(service: Running) -> bool:
    return psutil.pid_exists(service.pid) and psutil.Process(service.pid).status() != psutil.STATUS_ZOMBIE
