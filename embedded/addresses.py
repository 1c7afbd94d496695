"""Where Kafka and Postgres are, for tools: as they are set, else those that run in the home."""

from dataclasses import dataclass

from embedded.home import Home, Status
from settings import Settings


@dataclass(frozen=True, slots=True)
class Addresses:
    """`kafka`, `postgres`: None where nothing is set and nothing runs. `running`: what runs in the home."""

    kafka: str | None
    postgres: str | None
    running: Status | None


def addresses(settings: Settings) -> Addresses:
    """As the processes of this deployment have them."""
    home = Home(settings.assistant_home)
    running = home.read_status() if home.supervisor() is not None else None
    return Addresses(
        kafka=settings.kafka_bootstrap_servers or (running.kafka if running else None),
        postgres=settings.postgres_dsn or (running.postgres if running else None),
        running=running,
    )
