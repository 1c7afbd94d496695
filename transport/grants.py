"""Gives each role what it needs on the cluster, by the brokers' own admin protocol. Takes nothing away.

aiokafka 0.14 knows the request, for one ACL each; here all of them go in one.
"""

from collections.abc import Sequence
from typing import Any

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    for_code,
)
from aiokafka.protocol.admin import CreateAclsRequest_v1
from aiokafka.protocol.api import Request

from transport.acls import Acl, principal
from transport.admin import TopicsError, connected
from transport.clients import KafkaAccess
from transport.permissions import BITS

# Source: Kafka protocol, ResourceType, PatternType and AclPermissionType.
RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
LITERAL, PREFIXED = 3, 4
ALLOW = 3
ANY_HOST = "*"
AT_ONCE = 500  # in one request
HAVE_NO_ACLS = 54  # SECURITY_DISABLED, which aiokafka does not know

SECURITY_DISABLED = (
    "the brokers have no authorizer, so no ACL counts: set authorizer.class.name, see docs/kafka-security.md"
)
NOT_ALLOWED = (
    "this Kafka user may not make ACLs: it needs Alter on the cluster, or to be one of the brokers' super.users"
)


class _Create(Request[CreateAclsRequest_v1]):  # type: ignore[misc]  # aiokafka is not typed
    API_KEY = 30

    def __init__(self, creations: Sequence[tuple[Any, ...]]) -> None:
        self._creations = list(creations)

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        """Called by aiokafka once it knows what the broker speaks."""
        if request_struct_class.API_VERSION < 1:
            raise IncompatibleBrokerVersion("ACLs of prefixes need Kafka 2.0")
        return request_struct_class(self._creations)


async def grant(access: KafkaAccess, found: Sequence[Acl], *, prefix: str) -> int:
    """Make these ACLs; those that are there stay as they are, so it may be called again. Returns how many they are.

    Args:
        access: The cluster, as somebody who may make ACLs.
        found: What is allowed.
        prefix: Of the principals' names.

    Raises:
        RefusedError: The brokers do not take us.
        TopicsError: They cannot be reached, have no ACLs, or refuse to make these; those before are made then.
    """
    async with connected(access) as admin:
        for at in range(0, len(found), AT_ONCE):
            some = found[at : at + AT_ONCE]
            reply = await admin._send_to_controller(_Create([_creation(acl, prefix) for acl in some]))
            for acl, (code, message) in zip(some, reply.creation_responses, strict=True):
                if code:
                    raise TopicsError(_why(acl, code, message, prefix))
    return len(found)


def _creation(acl: Acl, prefix: str) -> tuple[Any, ...]:
    pattern = PREFIXED if acl.prefixed else LITERAL
    who = principal(acl.role, prefix)
    return (RESOURCES[acl.resource], acl.name, pattern, who, ANY_HOST, BITS[acl.operation], ALLOW)


def _why(acl: Acl, code: int, message: str | None, prefix: str) -> str:
    if code == HAVE_NO_ACLS:
        return SECURITY_DISABLED
    if code == ClusterAuthorizationFailedError.errno:
        return NOT_ALLOWED
    what = f"{acl.operation} on the {acl.resource} {acl.name} for {principal(acl.role, prefix)}"
    return f"the brokers refused to allow {what}: {message or for_code(code).__name__}"
