"""A Kafka and a Postgres of the suite's own, each behind a proxy through which the product's clients go.

Where one of the faults is a full disk, each has a disk of its own.
"""

import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from chaos.disks import Disk, keep_mounts_to_ourselves, own_disk
from chaos.helper import Helper
from embedded import kafka
from embedded.part import Part
from embedded.ports import HOST, free_port
from embedded.postgres import postgres_part
from embedded.running import Running


@dataclass(frozen=True)
class Services:
    """`bootstrap`, `dsn`: through the proxy; `kafka`, `postgres`: to be killed; `network`: the proxy, to be told."""

    kafka: "Broker"
    postgres: Running
    network: Helper
    bootstrap: str
    dsn: str
    disks: Mapping[str, Disk]
    logs: Path


def start(home: Path, stack: ExitStack, *, seed: int, own_disks: bool) -> Services:
    """Start all three; they end with the stack. Called in the main thread, while there is no other.

    `own_disks`: wanted, and there where we may; `disks` says.
    """
    logs = home / "logs"
    may = own_disks and keep_mounts_to_ourselves()
    disks: dict[str, Disk] = {}
    for name in ("kafka", "postgres"):
        if may and (disk := own_disk(home / name, stack)) is not None:
            disks[name] = disk
        (home / name).mkdir(exist_ok=True)
    port = free_port()
    listening = {name: free_port() for name in ("kafka", "postgres")}
    broker = Broker(home / "kafka", port, proxy_port=listening["kafka"], log=logs / "kafka.log")
    stack.callback(broker.kill)
    broker.start()
    part, at = postgres_part(home / "postgres", port=free_port())
    postgres = Running(part, logs / "postgres.log", dsn=at)
    stack.callback(postgres.kill)
    postgres.start()
    parts = urlsplit(postgres.dsn)
    targets = {"kafka": port, "postgres": parts.port}
    routes = [f"{name}:{listen}:{targets[name]}" for name, listen in listening.items()]
    network = Helper.start("chaos.proxy", *routes, "--seed", str(seed))
    stack.callback(network.close)
    where = f"{parts.username}:{parts.password}@{HOST}:{listening['postgres']}"
    dsn = urlunsplit(parts._replace(netloc=where))
    return Services(broker, postgres, network, f"{HOST}:{listening['kafka']}", dsn, disks, logs)


class Broker(Running):
    """A broker that tells clients to come through the proxy."""

    def __init__(self, home: Path, port: int, *, proxy_port: int, log: Path) -> None:
        """`home`: is there; the broker is not started."""
        self._home, self._real, self._proxied = home, f"{HOST}:{port}", f"{HOST}:{proxy_port}"
        self._ports = {"port": port, "controller_port": free_port()}
        super().__init__(self._prepare(), log, bootstrap=self._real)
        self.advertise()

    def advertise(self, *, proxied: bool = True) -> None:
        """Where clients are sent to, from its next start on; for one that is looked at and not used: to itself."""
        config = self._home / "server.properties"
        wanted = f"advertised.listeners=PLAINTEXT://{self._proxied if proxied else self._real}"
        text, count = re.subn(r"(?m)^advertised\.listeners=.*$", wanted, config.read_text())
        if count != 1:
            raise RuntimeError("the embedded broker is not configured as it was: it has not one advertised listener")
        config.write_text(text)

    def lose_everything(self) -> None:
        """All that it has written, and who it was; it does not run meanwhile."""
        shutil.rmtree(self._home / "data")
        self._prepare()
        self.advertise()

    def _prepare(self) -> Part:
        return kafka.kafka_part(self._home, **self._ports, report=print)
