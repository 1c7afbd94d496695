"""What is broken: a Kafka, a Postgres, and several of each of the product's processes, kept running.

Whoever dies is started again on its port, as the supervisor does; whoever ended by itself is told apart in the ledger.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from chaos.failpoints import POISONED_EXIT
from chaos.ledger import Ledger
from chaos.services import Services
from embedded.part import Part
from embedded.ports import free_port
from embedded.spawn import spawn
from tests.conftest import KafkaForTests
from tests.deployment import ROOT, Deployment
from tests.forks import Forked, Forks

RESTART_AFTER_S = 0.5
WATCH_S = 0.1
DRAIN_S = 10
STOP_WITHIN_S = DRAIN_S + 5.0
PARTITIONS = 8
PREFIX = "chaos."
MODULE = "chaos.under_test"


@dataclass
class Member:
    """One of the product's processes; the same port over restarts."""

    name: str
    role: str
    words: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    forks: Forks | None = None
    port: int = field(default_factory=free_port)
    popen: "subprocess.Popen[bytes] | Forked | None" = None
    kept: bool = True  # started again when it dies
    paused: bool = False

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lives(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def start(self) -> None:
        """Called in the main thread: it ends with it."""
        ports = {"INGRESS_PORT": str(self.port), "WORKER_HTTP_PORT": str(self.port)}
        environment = {**self.environment, **ports}
        if self.forks is not None:
            self.popen = self.forks.start(MODULE, self.words, environment=environment, log=self.log)
            return

        async def never_asked() -> bool:
            return True

        argv = [sys.executable, "-m", MODULE, *self.words]
        part = Part(self.name, argv, never_asked, env=environment, cwd=ROOT)
        with self.log.open("ab") as output:
            self.popen = spawn(part, stdout=output)

    def signal(self, number: signal.Signals) -> None:
        if self.popen is not None:
            with contextlib.suppress(ProcessLookupError):
                self.popen.send_signal(number)


class System:
    """The deployment under test. `members` are kept running until `close`."""

    def __init__(
        self,
        services: Services,
        ledger: Ledger,
        folder: Path,
        *,
        consumer: str,
        mutant: str | None,
        environment: dict[str, str],
        forks: Forks | None = None,
    ) -> None:
        """`forks`: what its processes come from; else each imports the product itself."""
        self.services, self.ledger, self.folder, self._forks = services, ledger, folder, forks
        self.deployment = Deployment(
            KafkaForTests(services.bootstrap), services.dsn, PREFIX, folder,
            {
                "JWT_EXPIRES_MIN": "1440", "DRAIN_TIMEOUT": str(DRAIN_S), "CONSUMER": consumer, "LLM_TIMEOUT": "30",
                "MUTANT": mutant or "", "RETRY_LONG_FIRST_S": "3",
                "RATE_LIMIT_USER_REQUESTS": "10000000", "RATE_LIMIT_ADMIN_REQUESTS": "10000000", **environment,
            },
        )  # fmt: skip
        self.members: list[Member] = []
        self.extras = 0
        self.kills = 0
        self.exits: list[tuple[str, int]] = []
        self._expected: set[str] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._held = False

    # --- starting and keeping ---

    def add(self, role: str, *, kept: bool = True, **extra: str) -> Member:
        """Start one more. `role`: ingress, or a worker's roles."""
        self.extras += 1
        name = f"{role}-{self.extras}"
        words = ("ingress",) if role == "ingress" else ("worker", "--roles", role)
        environment, log = self.deployment._environment(extra), self.folder / f"{name}.log"
        member = Member(name, role, words, environment, log, self._forks, kept=kept)
        member.start()
        self.members.append(member)
        return member

    def keep(self) -> None:
        """From now on start again what dies."""
        self._keeping = asyncio.create_task(self._keep(), name="keeper")

    async def _keep(self) -> None:
        while True:
            for member in list(self.members):
                if member.popen is not None and member.popen.poll() is not None:
                    self._ended(member)
                    if member.kept and not self._held:
                        await asyncio.sleep(RESTART_AFTER_S)
                        member.start()
            await asyncio.sleep(WATCH_S)

    async def stop(self) -> None:
        """Stop all of it, as an operator does: who does not end by itself is killed."""
        self._held = True
        for number in (signal.SIGTERM, signal.SIGKILL):
            for member in self.members:
                if member.lives:
                    self.kill(member, number)
            until = asyncio.get_running_loop().time() + STOP_WITHIN_S
            while any(member.lives for member in self.members) and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(WATCH_S)

    def go_on(self) -> None:
        """Start all of it again."""
        self._held = False
        for member in self.members:
            if member.popen is None and member.kept:
                member.start()

    def _ended(self, member: Member) -> None:
        popen, member.popen, member.paused = member.popen, None, False
        if popen is None or (code := popen.returncode) is None:
            return
        if member.name in self._expected:
            self._expected.discard(member.name)
        elif code == -signal.SIGKILL and not member.kept:
            self.note_kill(member, "failpoint")
        elif code == POISONED_EXIT:
            self.note_kill(member, "poison")
        else:
            self.exits.append((member.name, code))
            self.ledger.write("exit", member=member.name, code=code)
        if not member.kept:
            self.members.remove(member)

    async def close(self) -> None:
        """Kill all that is left; may be called twice."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        for member in self.members:
            if member.popen is not None:
                member.popen.kill()
                member.popen.wait(10)
        self.members.clear()

    # --- finding and breaking ---

    def of(self, role: str) -> list[Member]:
        """The kept members of a role that live now."""
        return [member for member in self.members if member.kept and member.lives and role in member.role.split(",")]

    @property
    def workers(self) -> list[Member]:
        """All kept workers that live."""
        return [member for member in self.members if member.kept and member.lives and member.role != "ingress"]

    def kill(self, member: Member, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and have it started again by the keeper."""
        self._expected.add(member.name)
        self.note_kill(member, number.name)
        member.signal(number)

    def expect(self, member: Member, *, no_more: bool = False) -> None:
        """Its next end is somebody's doing."""
        if no_more:
            self._expected.discard(member.name)
        else:
            self._expected.add(member.name)

    def note_kill(self, member: Member, how: str) -> None:
        """Count and write down."""
        self.kills += how != "SIGTERM"
        self.ledger.write("kill", member=member.name, how=how)

    def pause(self, member: Member) -> None:
        """SIGSTOP."""
        member.paused = True
        member.signal(signal.SIGSTOP)

    def resume(self, member: Member) -> None:
        """SIGCONT."""
        member.paused = False
        member.signal(signal.SIGCONT)

    async def ready(self, *members: Member, within_s: float = 90) -> str:
        """Empty once these (or all that are kept) say that they are; else who is not, and why."""
        deadline = asyncio.get_running_loop().time() + within_s
        async with httpx.AsyncClient(timeout=3, trust_env=False) as client:
            for member in members or [member for member in self.members if member.kept]:
                while member in self.members and (problem := await _problem(client, member)):
                    if asyncio.get_running_loop().time() > deadline:
                        return f"{member.name}: {problem}"
                    await asyncio.sleep(0.1)
        return ""


async def _problem(client: httpx.AsyncClient, member: Member) -> str:
    try:
        reply = await client.get(f"{member.http}/readyz")
    except httpx.HTTPError as error:
        return type(error).__name__
    return "" if reply.status_code == 200 else reply.text[:200]
