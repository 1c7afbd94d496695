"""One run from beginning to end: set up, load, break, wait for the end, look, judge, report."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx

from chaos import ledger as ledgers
from chaos import services as own_services
from chaos.checker import Observed, Verdict, check
from chaos.dump import group_lag, observe
from chaos.faults.registry import Fault, Scene
from chaos.helper import Helper
from chaos.ledger import Ledger
from chaos.load import SLOW, Load, Target
from chaos.monitor import Monitor
from chaos.nemesis import CALM_STOCK_SHORT_S, CALM_WITHIN_S, Nemesis
from chaos.report import print_report
from chaos.system import PARTITIONS, System
from tests.conftest import SECRET
from tests.deployment import PASSWORD
from tests.forks import Forks

USERS, USERS_SHORT = 24, 8
REPLICAS = 2
MAX_RATE, MIN_RATE = 120.0, 5.0
SLOW_STOCK_SHORT = 0.2  # share of slow calls, past which it commits: a few kills then lose many
# Of the duration, for starting and ending.
MOST_KEPT_S, MOST_KEPT_SHARE = 240.0, 0.25
SETTLE_S, SETTLE_STOCK_S, SETTLE_STOCK_SHORT_S = 100.0, 10.0, 5.0  # without anything moving; a webhook's lease is 60 s
END_WITHIN_S = 900.0
PROVIDER = "openai"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    `jobs`: that are to be accepted, at least; `duration_s` 0: as long as it takes; `rounds`: over all faults, and then
    the load ends; None: when there were all jobs and all faults.
    """

    jobs: int
    duration_s: float
    seed: int
    consumer: str
    faults: Sequence[Fault]
    short: bool
    rounds: int | None = None
    keep: bool = False
    mutant: str | None = None

    @property
    def rate(self) -> float:
        """Jobs per second."""
        if not self.duration_s:
            return MAX_RATE
        return min(MAX_RATE, max(MIN_RATE, 1.4 * self.jobs / self.load_s))

    @property
    def load_s(self) -> float:
        """How long jobs are sent at most; 0: as long as it takes."""
        return self.duration_s - min(MOST_KEPT_S, MOST_KEPT_SHARE * self.duration_s)


def run(plan: Plan, report: Report | None = None) -> Verdict:
    """Run it, print the table, and give what was found; blocks, in the main thread."""
    report = report or _since(time.monotonic())
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    home.chmod(0o755)  # Postgres runs as somebody else where we are root
    with ExitStack() as stack:
        lines, logs = home / "ledger", home / "logs"
        lines.mkdir()
        logs.mkdir()
        for folder in ("kafka", "postgres"):
            stack.callback(shutil.rmtree, home / folder, ignore_errors=True)
        report(f"seed={plan.seed} jobs={plan.jobs} rate={plan.rate:.0f}/s ledger and logs in {home}")
        own_disks = any(fault.fills_a_disk for fault in plan.faults)
        services = own_services.start(home, stack, seed=plan.seed, own_disks=own_disks)
        ledger = Ledger(lines / "driver.jsonl")
        stack.callback(ledger.close)
        provider = Helper.start("chaos.provider", "--ledger", str(lines / "provider.jsonl"))
        stack.callback(provider.close)
        receiver = Helper.start("chaos.receiver", "--ledger", str(lines / "receiver.jsonl"), "--master", SECRET)
        stack.callback(receiver.close)
        environment = {"ALLOWED_PROVIDERS": PROVIDER, "OPENAI_API_KEY": "stub", "OPENAI_BASE_URL": provider.url}
        if plan.short:  # what a killed sink was sending waits for its lease to run out
            environment |= {"WEBHOOK_TIMEOUT_S": "5", "WEBHOOK_LEASE_S": "10"}
        forks = Forks() if plan.short else None  # most of the short cut's time was imports, some thirty times over
        if forks is not None:
            stack.callback(forks.close)
        system = System(
            services, ledger, logs, consumer=plan.consumer, mutant=plan.mutant, environment=environment, forks=forks
        )
        asyncio.run(system.deployment.set_up(partitions=PARTITIONS))
        nemesis, observed = asyncio.run(_broken(plan, system, ledger, provider, receiver, report))
        ledger.close()
        verdict = check(ledgers.read(lines), observed)
        print_report(
            verdict, nemesis.done, seed=plan.seed, consumer=plan.consumer, kills=system.kills, exits=system.exits,
            not_calm=[one for one in nemesis.done if one.not_calm],
        )  # fmt: skip
    if not verdict.failed and not plan.keep:  # when nothing writes to it any more
        shutil.rmtree(home, ignore_errors=True)
    return verdict


def _since(began: float) -> Report:
    def report(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s {text}", flush=True)

    return report


async def _broken(
    plan: Plan, system: System, ledger: Ledger, provider: Helper, receiver: Helper, report: Report
) -> tuple[Nemesis, Observed]:
    monitor: Monitor | None = None
    try:
        for role in ("ingress", "gate", "completion", "sink"):
            for _ in range(REPLICAS):
                system.add(role)
        if problem := await system.ready(within_s=120):
            raise RuntimeError(f"the system did not become ready: {problem}; look at {system.folder}")
        report("     the system is ready")
        system.keep()
        target = await _target(system, receiver, users=USERS_SHORT if plan.short else USERS)
        slow = SLOW_STOCK_SHORT if plan.consumer == "stock" and plan.short else SLOW
        async with Load(target, ledger, plan.seed, plan.rate, slow_share=slow) as load:
            monitor = Monitor(system.services.postgres.dsn, provider.url, acked=lambda: load.acked)
            monitor.start()
            scene = Scene(system, load, monitor, provider, receiver, system.services, ledger, Random(), plan.short)
            calm_within_s = CALM_STOCK_SHORT_S if plan.consumer == "stock" and plan.short else CALM_WITHIN_S
            nemesis = Nemesis(scene, plan.faults, plan.seed, plan.rounds, report, calm_within_s=calm_within_s)
            await _load_and_break(plan, load, nemesis, report)
        report(f"     {load.sent} sent, {load.acked} accepted; waiting until nothing waits")
        await _settled(plan, system, report)
        await monitor.stop()
        return nemesis, await observe(
            system.services.postgres.dsn, system.services.kafka.bootstrap, system.deployment.catalog, provider=PROVIDER
        )
    finally:
        if monitor is not None:
            await monitor.stop()
        await system.close()


async def _load_and_break(plan: Plan, load: Load, nemesis: Nemesis, report: Report) -> None:
    """Both until the jobs are sent and each fault was there, or all rounds were; or the time is over."""
    began = time.monotonic()
    no_more_load, no_more_faults = asyncio.Event(), asyncio.Event()
    loading = asyncio.create_task(load.run(no_more_load))
    breaking = asyncio.create_task(nemesis.run(no_more_faults))
    pending = {loading, breaking}
    last_told = 0.0
    while pending:
        done, pending = await asyncio.wait(pending, timeout=1)
        for task in done:
            await task
        elapsed = time.monotonic() - began
        is_over = bool(plan.duration_s) and elapsed > plan.load_s
        has_all = plan.rounds is None and nemesis.rounds_done > 0 and load.acked >= plan.jobs
        if is_over or has_all:
            no_more_faults.set()
        if is_over or breaking.done():
            no_more_load.set()
        if elapsed - last_told > 60:
            last_told = elapsed
            report(f"     {elapsed:.0f} s: {load.acked} jobs accepted, {nemesis.scene.system.kills} kills")


async def _target(system: System, receiver: Helper, *, users: int) -> Target:
    """Users with tokens; and whether the ingress knows idempotency keys."""
    ingresses = [member.http for member in system.of("ingress")]
    tokens: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=ingresses[0], timeout=30, trust_env=False) as client:
        reply = await client.post("/auth/login", json={"user_id": "root", "password": PASSWORD})
        client.headers["authorization"] = f"Bearer {reply.raise_for_status().json()['access_token']}"
        for number in range(users):
            name = f"user-{number}"
            reply = await client.post("/auth/register", json={"user_id": name, "password": PASSWORD})
            tokens[name] = reply.raise_for_status().json()["access_token"]
        keyed = "idempotency-key" in (await client.get("/openapi.json")).text.lower()
    topic = system.deployment.catalog.full_name("job-requested")
    return Target(ingresses, system.services.bootstrap, topic, receiver.url, tokens, keyed)


async def _settled(plan: Plan, system: System, report: Report) -> None:
    """Wait until nothing waits: no pending row, no lag, no webhook that is due now; or until nothing moves any more."""
    import asyncpg

    patience = SETTLE_S
    if plan.consumer == "stock":  # what it has lost will not move
        patience = SETTLE_STOCK_SHORT_S if plan.short else SETTLE_STOCK_S
    began = moved_at = time.monotonic()
    before: tuple[int, ...] | None = None
    while True:
        found: tuple[int, ...] | None = None
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            connection = await asyncpg.connect(system.services.postgres.dsn, timeout=5)
            row = await connection.fetchrow(
                "SELECT count(*) FILTER (WHERE status = 'pending'), count(*), (SELECT count(*) FROM webhooks "
                "WHERE state = 'due' AND due_at < now()) FROM jobs"
            )
            await connection.close()
            lag = await group_lag(system.services.kafka.bootstrap, system.deployment.catalog, PROVIDER)
            found = (row[0], row[1], row[2], lag)
        now = time.monotonic()
        if found is not None and found[0] == found[2] == found[3] == 0:
            return
        if found != before:
            report(f"     pending, rows, webhooks due, lag: {found}")
            before, moved_at = found, now
        if now - moved_at > patience or now - began > END_WITHIN_S:
            report(f"     it does not end: (pending, rows, webhooks due, lag) = {found}")
            return
        await asyncio.sleep(1)
