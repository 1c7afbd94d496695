"""What every Kafka client of ours is opened with."""

from dataclasses import dataclass
from typing import Any

from transport import fetcher_end, tolerant_records

tolerant_records.install()
fetcher_end.install()


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """Where the cluster is. `bootstrap_servers`: `host:port`, several with commas."""

    bootstrap_servers: str

    def options(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client."""
        return {"bootstrap_servers": self.bootstrap_servers, "request_timeout_ms": 20_000}

    def faust_broker(self) -> list[str]:
        """The same as Faust wants it."""
        return [f"kafka://{address.strip()}" for address in self.bootstrap_servers.split(",")]
