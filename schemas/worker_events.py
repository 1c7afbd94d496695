"""What workers say of themselves."""

from datetime import datetime
from typing import Literal

from schemas.event_base import Event, Time

FORGOTTEN_WORKER_S = 3600.0
MAX_OFFERED_MODELS = 100  # of a provider; they ride in every heartbeat


class ProviderOffer(Event):
    """A provider that a worker has the key or address of.

    `models`: the first of them where there are many; `can`: `stream`, `images`, `embeddings`, or only `speech`: what
    speaks is an offer of its own, with `speakers` and `languages`; so is what trains, with `training`, or with
    `training-unavailable` and a `note` that says why not; `parameters`: of `generation_config`; `healthy`:
    whether it answered when it was last asked, None before; `code`: why it is not; `breaker`: whether this worker asks
    it for answers at all.
    """

    name: str
    models: tuple[str, ...] = ()
    default_model: str | None = None
    can: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    embedding_model: str | None = None
    healthy: bool | None = None
    code: str | None = None
    checked_at: Time | None = None
    breaker: Literal["closed", "half-open", "open"] | None = None
    speakers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    note: str | None = None


class StageLoad(Event):
    """How busy a stage of one worker is."""

    stage: str
    in_flight: int
    lag: int
    finished_last_minute: int


class WorkerHeartbeat(Event):
    """A worker lives (compacted by worker; every 5 s; `stopped` is its last one)."""

    worker: str
    at: Time
    roles: tuple[str, ...]
    partitions: dict[str, tuple[int, ...]] = {}
    stages: tuple[StageLoad, ...] = ()
    providers: tuple[ProviderOffer, ...] = ()
    version: str = ""
    http: str | None = None
    stopped: bool = False
    process: str = ""  # tells two processes of one name apart
    started_at: Time | None = None

    def is_forgotten(self, now: datetime) -> bool:
        """True once it has been silent for so long that nobody asks for it."""
        return (now - self.at).total_seconds() > FORGOTTEN_WORKER_S
