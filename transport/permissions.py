"""What the brokers let us do, asked of them before anything runs: an ACL that is missing is told by its name.

aiokafka 0.14 speaks an older Metadata request, which does not tell this; so ours is here.
"""

from collections.abc import Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    BrokerResponseError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from schemas.topics import Catalog
from transport.acls import Acl, acls

# Source: Kafka protocol, AclOperation. Brokers set the bit of each operation that is allowed.
BITS = {"Read": 3, "Write": 4, "Create": 5, "Alter": 7, "Describe": 8, "DescribeConfigs": 10, "AlterConfigs": 11,
        "IdempotentWrite": 12}  # fmt: skip
TEXT, INTS = String("utf-8"), Array(Int32)


class _Answer(Response):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY, API_VERSION = 3, 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT))),
        ("cluster_id", TEXT),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", TEXT),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
                        ("replicas", INTS), ("isr", INTS), ("offline", INTS),
                    ),
                ),
                ("allowed", Int32),
            ),
        ),
        ("allowed_on_cluster", Int32),
    )  # fmt: skip


class _Question(RequestStruct):  # type: ignore[misc]  # as above
    API_KEY, API_VERSION, RESPONSE_TYPE = 3, 8, _Answer
    SCHEMA = Schema(
        ("topics", Array(TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Ask(Request[_Question]):  # type: ignore[misc]  # as above
    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_Question]) -> _Question:
        """Called by aiokafka once it knows what the broker speaks; never makes a topic."""
        return request_struct_class(self._topics, False, True, True)


async def missing(
    admin: AIOKafkaAdminClient, catalog: Catalog, providers: Sequence[str], roles: Sequence[str]
) -> list[Acl]:
    """What these roles need and are not allowed; nothing where the brokers are too old or too new to tell."""
    needed = acls(catalog, providers, roles)
    try:
        answer: dict[str, Any] = (await admin._send_request(_Ask(sorted(catalog.deployed(providers))))).to_object()
    except (IncompatibleBrokerVersion, NotImplementedError):  # aiokafka says either of versions it has not
        return []
    allowed = {
        topic["topic"]: 0 if topic["error_code"] == TopicAuthorizationFailedError.errno else topic["allowed"]
        for topic in answer["topics"]
        if topic["error_code"] in (0, TopicAuthorizationFailedError.errno)
    }  # one that is missing is told by who compares the topics
    found = [acl for acl in needed if acl.resource == "topic" and not _is_allowed(allowed.get(acl.name), acl.operation)]
    for acl in (acl for acl in needed if acl.resource == "group"):
        try:
            await admin.find_coordinator(acl.name)
        except GroupAuthorizationFailedError:
            found.append(acl)
        except BrokerResponseError:
            continue  # of a new cluster, whose groups have no coordinator yet: it would let us
    return found


def _is_allowed(bits: int | None, operation: str) -> bool:
    return bits is None or bool(bits & 1 << BITS[operation])


def told(found: Sequence[Acl], principal: str) -> str:
    """In one sentence, by operation."""
    by_operation: dict[str, list[str]] = {}
    for acl in found:
        by_operation.setdefault(f"{acl.operation} on the {acl.resource}", []).append(acl.name)
    lines = "; ".join(f"{what} {', '.join(sorted(set(names)))}" for what, names in sorted(by_operation.items()))
    return f"the Kafka user {principal!r} lacks: {lines}. `assistant topics acls` prints what gives it that"
