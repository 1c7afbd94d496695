"""What each role may do on the cluster, from who writes and reads what in `topics.yaml`; nothing else is needed."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from schemas.topics import Catalog, Topic

WORKERS = ("gate", "completion", "retrieval", "agent", "ingestion", "speech", "training", "sink")
ROLES = ("ingress", *WORKERS, "admin", "recover", "publisher")
# Producers and consumers of `topics.yaml`, and whose clients they use. `admin` is who runs `assistant setup`, `topics`
# and `doctor`; `publisher` a direct client, which writes and does not read: answers of others are on the topics, too.
PARTIES: dict[str, tuple[str, ...]] = {
    "ingress": ("ingress",),
    "follower": ("ingress",),
    "sanitize_prompt": ("gate",),
    "limit_rate": ("gate",),
    "route_job": ("gate",),
    "gate": ("gate",),
    "generate_completion": ("completion",),
    "embed_texts": ("completion",),
    "plan_agent_step": ("agent",),
    "run_tool": ("agent",),
    "retrieve_context": ("retrieval",),
    "partition_document": ("ingestion",),
    "embed_chunks": ("ingestion",),
    "generate_speech": ("speech",),
    "store_example": ("sink",),
    "train_adapter": ("training",),
    "store_pending": ("sink",),
    "store_outcome": ("sink",),
    "store_dead_letter": ("sink",),
    "store_incident": ("sink",),
    "sink": ("sink",),
    "worker": WORKERS,
    "setup": ("admin",),
    "doctor": ("admin",),
    "operator": ("admin",),
    "recover": ("recover",),
    "anyone": ("publisher",),
}
ADMINISTERS = ("Create", "Alter", "AlterConfigs")  # never Delete: no command of ours deletes a topic
CLUSTER = "kafka-cluster"

Resource = Literal["topic", "group", "cluster"]


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """Something that a role is allowed. `prefixed`: every resource whose name begins so."""

    role: str
    resource: Resource
    name: str
    prefixed: bool
    operation: str


class UnknownPartyError(Exception):
    """`topics.yaml` names a producer or consumer that no role is known for; the message says where to add it."""


def acls(catalog: Catalog, providers: Sequence[str], roles: Sequence[str] = ROLES) -> list[Acl]:
    """All that these roles need, in an order that stays.

    Args:
        catalog: The topics, with the prefix of their names.
        providers: Those that have topics of their own.
        roles: Of `ROLES`.

    Raises:
        UnknownPartyError: A producer or consumer has no role.
    """
    deployed = catalog.deployed(providers)
    return sorted({found for role in roles for found in _of(role, deployed, catalog)})


def _of(role: str, deployed: dict[str, Topic], catalog: Catalog) -> Iterator[Acl]:
    writes = False
    for name, topic in deployed.items():
        if role != "publisher":  # every start compares all topics with topics.yaml
            yield Acl(role, "topic", name, False, "Describe")
            yield Acl(role, "topic", name, False, "DescribeConfigs")
        if _is_among(role, topic.producers, topic.name):
            writes = True
            yield Acl(role, "topic", name, False, "Write")
            yield Acl(role, "topic", name, False, "Describe")
        if _is_among(role, topic.consumers, topic.name):
            yield Acl(role, "topic", name, False, "Read")
        if role == "admin":
            for operation in ADMINISTERS:
                yield Acl(role, "topic", name, False, operation)
    if role in WORKERS:
        yield Acl(role, "group", catalog.group(role), True, "Read")
    if role == "recover":  # how far the sinks are
        yield Acl(role, "group", catalog.group("sink"), True, "Describe")
    if role != "publisher":
        yield Acl(role, "cluster", CLUSTER, False, "Describe")
    if writes:  # brokers before 2.8 do not take it from the right to write
        yield Acl(role, "cluster", CLUSTER, False, "IdempotentWrite")


def _is_among(role: str, parties: Sequence[str], topic: str) -> bool:
    for party in parties:
        if party not in PARTIES:
            raise UnknownPartyError(f"topics.yaml names {party} at {topic}: say in transport/acls.py which role it is")
    return any(role in PARTIES[party] for party in parties)


def for_one(found: Sequence[Acl], user: str) -> list[Acl]:
    """The rights of several roles for one user, as a worker with several roles needs them."""
    return sorted({replace(acl, role=user) for acl in found})


def principal(role: str, prefix: str) -> str:
    """`User:assistant-gate`."""
    return f"User:{prefix}{role}"


def as_commands(found: Sequence[Acl], *, prefix: str, bootstrap_servers: str) -> list[str]:
    """For a shell: Kafka's own tool, with topics that have the same rights in one line."""
    together: dict[tuple[Any, ...], list[Acl]] = {}
    operations: dict[tuple[str, str, str, bool], list[str]] = {}
    for acl in found:
        operations.setdefault((acl.role, acl.resource, acl.name, acl.prefixed), []).append(acl.operation)
    for acl in found:
        key = (acl.role, acl.resource, acl.prefixed, *operations[acl.role, acl.resource, acl.name, acl.prefixed])
        if all(known.name != acl.name for known in together.setdefault(key, [])):
            together[key].append(acl)
    lines = []
    for (role, resource, prefixed, *allowed), names in together.items():
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--command-config", "admin.properties"]
        words += ["--add", "--allow-principal", principal(role, prefix)]
        words += [word for operation in allowed for word in ("--operation", operation)]
        if prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        words += ["--cluster"] if resource == "cluster" else [w for acl in names for w in (f"--{resource}", acl.name)]
        lines.append(shlex.join(words))
    return lines


def as_public(found: Sequence[Acl], *, prefix: str) -> list[dict[str, str]]:
    """For programs, in the words of Kafka's admin API."""
    return [
        {
            "role": acl.role, "principal": principal(acl.role, prefix), "host": "*", "permission": "ALLOW",
            "operation": acl.operation, "resource_type": acl.resource.upper(), "resource_name": acl.name,
            "pattern_type": "PREFIXED" if acl.prefixed else "LITERAL",
        }
        for acl in found
    ]  # fmt: skip
