"""Kafka, Postgres, vectors and embeddings by themselves, for tests: to be used, and to be broken on purpose."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from embedded import kafka, postgres
from embedded.embeddings import embeddings_part
from embedded.ports import HOST, KeptPorts
from embedded.running import Running
from embedded.vectors import vectors_part


def start_kafka(home: Path, *, report: Callable[[str], None] = print) -> Running:
    """A broker of its own; blocks until it answers."""
    ports = KeptPorts(home / "ports.json")
    port = ports.get("kafka")
    part = kafka.kafka_part(home, port=port, controller_port=ports.get("kafka-controller"), report=report)
    running = Running(part, home / "kafka.log", bootstrap=f"{HOST}:{port}")
    running.start()
    return running


def start_postgres(home: Path, *, durable: bool = True) -> Running:
    """A database of its own; blocks until it answers.

    Args:
        home: Its folder.
        durable: What it has committed outlives the machine, and not only its own process.
    """
    home.mkdir(parents=True, exist_ok=True)
    part, dsn = postgres.postgres_part(home, port=KeptPorts(home / "ports.json").get("postgres"))
    if not durable:
        part = replace(part, argv=[*part.argv, "-c", "fsync=off"])
    running = Running(part, home / "postgres.log", dsn=dsn)
    running.start()
    return running


def start_vectors(home: Path, *, api_key: str | None = None) -> Running:
    """Vectors of its own; blocks until they answer."""
    home.mkdir(parents=True, exist_ok=True)
    port = KeptPorts(home / "ports.json").get("vectors")
    part, url = vectors_part(home / "vectors", port=port, api_key=api_key)
    running = Running(part, home / "vectors.log", url=url)
    running.start()
    return running


def start_embeddings(home: Path, *, model: str) -> Running:
    """The embedding model by itself; blocks until it answers."""
    home.mkdir(parents=True, exist_ok=True)
    part, url = embeddings_part(port=KeptPorts(home / "ports.json").get("embeddings"), model=model)
    running = Running(part, home / "embeddings.log", url=url)
    running.start()
    return running
