"""Typed reader of `topics.yaml`; an unknown key in it is an error."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from schemas import events
from schemas.events import Event

TOPICS_FILE = Path(__file__).parent.parent / "topics.yaml"
PROVIDER = "{provider}"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C: 5 ms at each start rather than 50
ONLY_SPEAKING = frozenset({"qwen-tts"})  # providers that answer no prompts: they have no topics of their own
MAX_MESSAGE_BYTES = 1_048_576


class Topic(BaseModel):
    """One topic, or with `{provider}` in its name one per provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z-]*(\{provider\})?$")]
    description: str
    event: str | None
    key: Literal["user_id", "job_id", "worker", "as it came"]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitions: Annotated[int, Field(ge=1, le=1024)]
    retention_ms: Annotated[int, Field(ge=60_000)] | None = None
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"
    segment_ms: Annotated[int, Field(ge=60_000)] | None = None
    timestamp: Literal["CreateTime", "LogAppendTime"] = "CreateTime"
    compression: Literal["uncompressed"] | None = None  # None: as its producers pack it
    max_message_bytes: Annotated[int, Field(ge=1024)] = MAX_MESSAGE_BYTES

    def config(self) -> dict[str, str]:
        """The topic's configuration at the broker, as far as we set it."""
        config = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": self.timestamp,
        }
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        if self.compression is not None:
            config["compression.type"] = self.compression
        if self.segment_ms is not None:
            config["segment.ms"] = str(self.segment_ms)
        return config

    def event_class(self) -> type[Event] | None:
        """The class of what is on it; None for dead letters, which are whatever they were."""
        if self.event is None:
            return None
        found: type[Event] = getattr(events, self.event)
        return found


class Catalog:
    """The topics of one deployment: those of `topics.yaml`, with its prefix and for its providers."""

    def __init__(self, topics: Sequence[Topic], *, prefix: str = "") -> None:
        self._topics = {topic.name: topic for topic in topics}
        self.prefix = prefix

    @classmethod
    def load(cls, *, prefix: str = "", path: Path = TOPICS_FILE) -> "Catalog":
        """Read the file.

        Raises:
            pydantic.ValidationError: It does not fit, with the topic and field named.
        """
        content = yaml.load(path.read_text(), Loader)  # noqa: S506 a safe one
        return cls([Topic(name=name, **fields) for name, fields in content.items()], prefix=prefix)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def __getitem__(self, name: str) -> Topic:
        return self._topics[name]

    def full_name(self, name: str, *, provider: str | None = None) -> str:
        """The name at the broker, such as `staging.completion-requested-openai`.

        Raises:
            KeyError: `topics.yaml` has no such topic.
        """
        topic = self._topics[name]
        return self.prefix + (topic.name.replace(PROVIDER, provider) if provider else topic.name)

    def group(self, role: str) -> str:
        """The consumer group of a role's workers."""
        return f"{self.prefix}assistant-{role}"

    def deployed(self, providers: Sequence[str]) -> dict[str, Topic]:
        """Full name -> topic, with one of each `{provider}` topic for every provider."""
        return {
            self.full_name(topic.name, provider=provider): topic
            for topic in self
            for provider in (_that_answer(providers) if PROVIDER in topic.name else (None,))
        }


def _that_answer(providers: Sequence[str]) -> list[str]:
    return [provider for provider in providers if provider not in ONLY_SPEAKING]


def event_type(topic: Topic) -> str:
    """`ce_type` of the topic's events: its name without a provider."""
    return topic.name.removesuffix("-" + PROVIDER)
