"""Row 28: Kafka comes back with nothing, and `assistant recover` brings the unfinished jobs back from Postgres."""

import asyncio
import time

from chaos.dump import lag_of, look_at_log, look_at_rows
from chaos.faults.network import set_mode
from chaos.faults.registry import Scene, Void, fault
from chaos.system import PARTITIONS

PROVIDER = "openai"
QUIET_WITHIN_S, QUIET_LOOKS = 90.0, 3
OPEN_CALLS, OPEN_S, PUT_OFF = 40, 6.0, 20
BEFORE_S = 3.0
AT_WORK = """SELECT coalesce(array_agg(job_id::text), '{}') FROM jobs AS j WHERE status = 'pending'
             AND NOT EXISTS (SELECT FROM due_events AS d WHERE d.job_id = j.job_id)"""


@fault("28", "Kafka's whole log lost; a fresh cluster, and `assistant recover --kafka`")
async def log_lost(scene: Scene) -> None:
    """Every job with a row ends; those of the last moments without one are forgotten, as docs/recovery.md says."""
    async with scene.load.paused():  # so that nothing which was lost before is put down to this
        stranded = await waiting(scene, within_s=QUIET_WITHIN_S)
        since = time.time()
    scene.load.burst(OPEN_CALLS, delay_s=OPEN_S)
    for _ in range(PUT_OFF):
        scene.load.send(delay_s=0, via="rest", mark=" [fails=2]")
    await scene.in_flight(OPEN_CALLS)
    await asyncio.sleep(BEFORE_S)

    await scene.load.disconnect()
    broker = scene.services.kafka
    await asyncio.to_thread(broker.kill)
    scene.system.kills += 1
    await set_mode(scene, "kafka", "refuse")
    await scene.system.stop()
    unfinished = await _look(scene, since, stranded)
    await asyncio.to_thread(broker.lose_everything)
    await asyncio.to_thread(broker.start)
    await set_mode(scene, "kafka", "pass")
    for words in (("setup", "--partitions", str(PARTITIONS)), ("recover", "--kafka")):
        done = await asyncio.to_thread(scene.system.deployment.run, *words)
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")
    scene.ledger.write("recovered", told=done.stdout)
    scene.system.go_on()
    await scene.load.connect()
    if not unfinished:
        raise Void("no job was unfinished")


async def waiting(scene: Scene, *, within_s: float) -> list[str]:
    """Jobs and partitions that are still at work after so long; put off ones are not."""
    until = time.monotonic() + within_s
    looks = 0  # at which nothing was found; one may have missed what went from one topic to the next meanwhile
    while True:
        lag = await lag_of(scene.services.kafka.bootstrap, scene.system.deployment.catalog, PROVIDER)
        found = list(await scene.asked(AT_WORK) or ())
        found += [f"{at}: {count} records" for at, count in lag.items() if count]
        looks = 0 if found else looks + 1
        if looks == QUIET_LOOKS or time.monotonic() > until:
            return found
        await asyncio.sleep(1)


async def _look(scene: Scene, since: float, stranded: list[str]) -> int:
    """The old log, once more and for the checker alone; nobody else reaches the broker. How many jobs were at work."""
    broker = scene.services.kafka
    broker.advertise(proxied=False)
    await asyncio.to_thread(broker.start)
    try:
        log = await look_at_log(broker.bootstrap, scene.system.deployment.catalog)
    finally:
        await asyncio.to_thread(broker.kill)
    rows, _ = await look_at_rows(scene.services.postgres.dsn)
    ended = {job for job, row in rows.items() if row.status != "pending"}
    scene.ledger.write(
        "log-lost", since=since, rows=list(rows), pending=sorted(rows.keys() - ended), stranded=stranded,
        finished={job: outcomes for job, outcomes in log.finished.items() if job in ended}, buried=sorted(log.buried),
        letters={job: sorted(codes) for job, codes in log.letters.items()},
    )  # fmt: skip
    return len(rows) - len(ended)
