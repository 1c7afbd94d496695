"""Agents' calls to hosts that the operator has named, by the guarded client."""

from collections.abc import Mapping, Sequence
from typing import Literal

import httpx

from processors.agents.ports import OutwardReply
from processors.errors import PermanentError
from sinks.egress import EgressClient
from sinks.egress_targets import Allowed, EgressRefusedError, check_url

MAX_REPLY_BYTES = 64 * 1024
REFUSED, FAILED = "call-refused", "call-failed"


class AgentCalls:
    """See `OutwardCalls`."""

    def __init__(self, hosts: Sequence[str], *, client: EgressClient, allowed: Allowed) -> None:
        """`hosts`: that may be called, each with all of its paths; `allowed`: as the client has it."""
        self.hosts: Sequence[str] = tuple(hosts)
        self._named, self._client, self._allowed = frozenset(hosts), client, allowed

    async def call(
        self, method: Literal["GET", "POST"], url: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> OutwardReply:
        """See `OutwardCalls.call`."""
        try:
            host = (check_url(url, allowed=self._allowed).hostname or "").rstrip(".").lower()
            if host not in self._named:
                told = f"{host} is not among the hosts that may be called: {', '.join(self.hosts)}"
                raise PermanentError(REFUSED, told)
            reply = await self._client.call(method, url, body, headers)
        except EgressRefusedError as error:
            raise PermanentError(REFUSED, str(error)) from None
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise PermanentError(FAILED, f"there was no answer ({type(error).__name__})") from None
        content_type = reply.headers.get("content-type", "")[:100]
        return OutwardReply(reply.status_code, content_type, _text(reply.body, content_type), reply.is_cut)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


def _text(body: bytes, content_type: str) -> str:
    """As text, whatever it is; what is none says so."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind and not (kind.startswith("text/") or any(word in kind for word in ("json", "xml", "javascript", "yaml"))):
        return f"[{len(body)} bytes of {kind}, which is no text]"
    return body.decode("utf-8", "replace").replace("\x00", "")
