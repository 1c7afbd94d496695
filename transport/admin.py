"""Topics as `topics.yaml` wants them, compared with those of the cluster.

A missing topic hangs a producer for ever and is ignored by consumers, so workers and the ingress check at start;
only `assistant topics apply` and `assistant setup` change anything.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.topics import Catalog
from transport.acls import Acl
from transport.clients import KafkaAccess
from transport.closing import close
from transport.permissions import missing

NATURE = ("message.timestamp.type", "cleanup.policy", "compression.type")
SIZE = "max.message.bytes"
SET_ON_THE_TOPIC = 1  # a configuration's source in the protocol, DYNAMIC_TOPIC_CONFIG


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as `topics.yaml` has it.

    `action`: `create` and `configure` are done by `apply`; `refuse` is for people, since it would break the order
    of keys (another number of partitions).
    """

    topic: str
    field: str
    wanted: str
    found: str | None
    action: Literal["create", "configure", "refuse"]

    def __str__(self) -> str:
        if self.action == "create":
            return f"{self.topic}: is missing"
        return f"{self.topic}: {self.field} is {self.found}, topics.yaml says {self.wanted}"


class TopicsError(Exception):
    """The cluster refused a change to its topics, or cannot be reached."""


class RefusedError(TopicsError):
    """The brokers do not take us: to try again helps nobody. The message says what to do."""


async def plan(
    access: KafkaAccess, catalog: Catalog, providers: Sequence[str], *, partitions: int | None = None
) -> list[Difference]:
    """What `apply` would change, and what it would refuse to.

    Args:
        access: The cluster.
        catalog: The topics as they should be.
        providers: Those that get a topic of their own.
        partitions: At most so many per topic (embedded mode: 4); None: as in `topics.yaml`.

    Raises:
        TopicsError: The cluster cannot be reached.
    """
    wanted = catalog.deployed(providers)
    async with connected(access) as admin:
        return await _differences(admin, wanted_partitions(catalog, providers, partitions), {
            name: topic.config() for name, topic in wanted.items()
        })  # fmt: skip


def wanted_partitions(catalog: Catalog, providers: Sequence[str], at_most: int | None) -> dict[str, int]:
    """Full name -> number of partitions."""
    return {
        name: min(topic.partitions, at_most or topic.partitions) for name, topic in catalog.deployed(providers).items()
    }


async def unusable(access: KafkaAccess, catalog: Catalog, providers: Sequence[str]) -> list[Difference]:
    """What a worker cannot run with: a topic that is missing, or one of another nature.

    Partitions and retention are the operator's. With `CreateTime` a client would choose when its request was accepted,
    and so its own rate limit; with another clean-up users or jobs would be thrown away; what is too large for a topic
    would end jobs.

    Raises:
        TopicsError: The cluster cannot be reached.
    """
    return [
        found
        for found in await plan(access, catalog, providers)
        if found.action == "create"
        or found.field in NATURE
        or (found.field == SIZE and int(found.found or 0) < int(found.wanted))
    ]


async def apply(
    access: KafkaAccess,
    catalog: Catalog,
    providers: Sequence[str],
    *,
    partitions: int | None = None,
    replication: int | None = None,
) -> list[Difference]:
    """Create what is missing, set what differs; returns what was different. May be called again at any time.

    Args:
        access: The cluster.
        catalog: The topics as they should be.
        providers: Those that get a topic of their own.
        partitions: As in `plan`.
        replication: Copies of each new topic; None: 3, or one per broker where there are fewer.

    Raises:
        TopicsError: The cluster refused, or a difference can only be mended by hand (another number of partitions).
    """
    configs = {name: topic.config() for name, topic in catalog.deployed(providers).items()}
    counts = wanted_partitions(catalog, providers, partitions)
    async with connected(access) as admin:
        differences = await _differences(admin, counts, configs)
        copies = replication or min(3, len((await admin.describe_cluster())["brokers"]))
        new = [
            NewTopic(name, counts[name], copies, topic_configs=configs[name])
            for name in sorted({found.topic for found in differences if found.action == "create"})
        ]
        if new:
            reply = await admin.create_topics(new)
            for name, code, *_ in reply.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):  # another replica was faster
                    raise TopicsError(f"{name}: the cluster refused to create it: {for_code(code).__name__}")
        changed = sorted({found.topic for found in differences if found.action == "configure"})
        if changed:
            await _configure(admin, {name: configs[name] for name in changed})
    if refused := [str(found) for found in differences if found.action == "refuse"]:
        raise TopicsError("to be mended by hand, since it moves keys to other partitions: " + "; ".join(refused))
    return differences


@dataclass(frozen=True, slots=True)
class Copies:
    """How safe a topic is, by its worst partition. `in_sync`: copies that are up to date; 0: nobody leads it."""

    topic: str
    replicas: int
    in_sync: int
    min_in_sync: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster says of itself. `produce_api`: the highest version of that request which it takes."""

    brokers: int
    produce_api: int
    copies: list[Copies]


async def describe(access: KafkaAccess, catalog: Catalog, providers: Sequence[str]) -> Cluster:
    """Look at the cluster and at the topics that are there.

    Raises:
        TopicsError: The cluster cannot be reached.
    """
    wanted = catalog.deployed(providers)
    async with connected(access) as admin:
        brokers = (await admin.describe_cluster())["brokers"]
        connection = await admin._client._get_conn(brokers[0]["node_id"])
        versions = connection._versions if connection is not None else {}
        found = [topic for topic in await admin.describe_topics() if topic["topic"] in wanted]
        configs = await _configs(admin, [topic["topic"] for topic in found])
    copies = [
        Copies(
            topic["topic"],
            min(len(partition["replicas"]) for partition in topic["partitions"]),
            min(len(partition["isr"]) if partition["leader"] >= 0 else 0 for partition in topic["partitions"]),
            int(configs.get(topic["topic"], {}).get("min.insync.replicas", 0)),  # not everybody may look
        )
        for topic in found
    ]
    return Cluster(len(brokers), versions.get(0, (0, 0))[1], copies)


async def lacking(access: KafkaAccess, catalog: Catalog, providers: Sequence[str], roles: Sequence[str]) -> list[Acl]:
    """What these roles need on the cluster, and what whoever we are there is not allowed.

    Raises:
        TopicsError: The cluster cannot be reached.
    """
    async with connected(access) as admin:
        return await missing(admin, catalog, providers, roles)


async def committed(access: KafkaAccess, group: str) -> dict[TopicPartition, int]:
    """How far a consumer group has acknowledged; without partitions that it never did.

    Raises:
        TopicsError: The cluster cannot be reached.
    """
    async with connected(access) as admin:
        found = await admin.list_consumer_group_offsets(group)
    return {at: place.offset for at, place in found.items() if place.offset >= 0}


async def delete(access: KafkaAccess, names: Sequence[str]) -> None:
    """Delete topics, as tests do with theirs."""
    async with connected(access) as admin:
        await admin.delete_topics(list(names))


async def add_partitions(access: KafkaAccess, name: str, total: int) -> None:
    """Raise a topic's number of partitions; keys then move, which `apply` never does by itself."""
    async with connected(access) as admin:
        await admin.create_partitions({name: NewPartitions(total_count=total)})


async def _differences(
    admin: AIOKafkaAdminClient, counts: dict[str, int], configs: dict[str, dict[str, str]]
) -> list[Difference]:
    found = {topic["topic"]: topic for topic in await admin.describe_topics() if topic["error_code"] == 0}
    present = sorted(counts.keys() & found.keys())
    differences = [
        Difference(name, "topic", "present", None, "create") for name in sorted(counts.keys() - found.keys())
    ]
    for name in present:
        count = len(found[name]["partitions"])
        if count != counts[name]:
            differences.append(Difference(name, "partitions", str(counts[name]), str(count), "refuse"))
    for name, config in (await _configs(admin, present)).items():
        differences.extend(
            Difference(name, field, value, config.get(field), "configure")
            for field, value in configs[name].items()
            if config.get(field) != value
        )
    return differences


async def _configs(
    admin: AIOKafkaAdminClient, names: Sequence[str], *, set_on_the_topic: bool = False
) -> dict[str, dict[str, str]]:
    """Topic -> field -> value; only what somebody has set on the topic itself, or also what the brokers default to."""
    if not names:
        return {}
    replies = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    return {
        resource[3]: {
            entry[0]: entry[1] for entry in resource[4] if not set_on_the_topic or entry[3] == SET_ON_THE_TOPIC
        }
        for reply in replies
        for resource in reply.resources
    }


async def _configure(admin: AIOKafkaAdminClient, configs: dict[str, dict[str, str]]) -> None:
    """Set these, beside what operators have set: the request replaces all that a topic has."""
    kept = await _configs(admin, list(configs), set_on_the_topic=True)
    replies = await admin.alter_configs(
        [
            ConfigResource(ConfigResourceType.TOPIC, name, configs=kept.get(name, {}) | config)
            for name, config in configs.items()
        ]
    )
    for code, message, _, name in (resource for reply in replies for resource in reply.resources):
        if code:
            raise TopicsError(f"{name}: the cluster refused to change it: {message or for_code(code).__name__}")


@asynccontextmanager
async def connected(access: KafkaAccess) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that is closed again.

    Raises:
        RefusedError: The brokers do not take us.
        TopicsError: They cannot be reached, or failed at what was asked.
    """
    admin = AIOKafkaAdminClient(**access.options())
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError) as error:
        if refusal := access.refusal:
            raise RefusedError(refusal) from error
        raise TopicsError(access.unreachable(error)) from error
    finally:
        await close(admin.close)
