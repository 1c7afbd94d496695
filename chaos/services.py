"""A Kafka and a Postgres of the suite's own, each behind a proxy through which the product's clients go."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from chaos.helper import Helper
from embedded import kafka
from embedded.ports import HOST, free_port
from embedded.services import Running, start_postgres


@dataclass(frozen=True)
class Services:
    """`bootstrap`, `dsn`: through the proxy; `kafka`, `postgres`: to be killed; `network`: the proxy, to be told."""

    kafka: Running
    postgres: Running
    network: Helper
    bootstrap: str
    dsn: str


def start(home: Path, stack: ExitStack, *, seed: int) -> Services:
    """Start all three; they end with the stack. Called in the main thread."""
    port = free_port()
    listening = {name: free_port() for name in ("kafka", "postgres")}
    broker = _broker(home / "kafka", port, advertised=listening["kafka"])
    stack.callback(broker.kill)
    postgres = start_postgres(home / "postgres")
    stack.callback(postgres.kill)
    parts = urlsplit(postgres.dsn)
    targets = {"kafka": port, "postgres": parts.port}
    routes = [f"{name}:{listen}:{targets[name]}" for name, listen in listening.items()]
    network = Helper.start("chaos.proxy", *routes, "--seed", str(seed))
    stack.callback(network.close)
    where = f"{parts.username}:{parts.password}@{HOST}:{listening['postgres']}"
    dsn = urlunsplit(parts._replace(netloc=where))
    return Services(broker, postgres, network, f"{HOST}:{listening['kafka']}", dsn)


def _broker(home: Path, port: int, *, advertised: int) -> Running:
    real = f"{HOST}:{port}"
    home.mkdir()
    config = home / "server.properties"
    part = kafka.kafka_part(
        home, port=port, controller_port=free_port(), report=print
    )  # fmt: skip
    told, wanted = f"advertised.listeners=PLAINTEXT://{real}", f"advertised.listeners=PLAINTEXT://{HOST}:{advertised}"
    text = config.read_text()
    if told not in text:
        raise RuntimeError("the embedded broker is not configured as it was: its advertised listener is another")
    config.write_text(text.replace(told, wanted))
    running = Running(part, home / "kafka.log", bootstrap=real)
    running.start()
    return running
