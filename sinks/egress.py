"""The one way out to addresses that users name: resolved once, refused unless public, connected to as checked."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import httpx

from sinks.egress_targets import NOTHING_ELSE, Allowed, EgressRefusedError, check_url, port_of

__all__ = ["Allowed", "EgressClient", "EgressRefusedError", "EgressReply", "check_url"]

CONNECT_TIMEOUT_S = 5.0
MAX_REPLY_BYTES = 64 * 1024
# The loop's own threads are few: a handful of nameservers that hang would keep everybody waiting for a name.
_RESOLVING = ThreadPoolExecutor(max_workers=64, thread_name_prefix="resolve")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class EgressReply:
    """What came back. `body`: of a GET its beginning, as it came; `is_cut`: there was more."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes = b""
    is_cut: bool = False


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, by the system's resolver."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVING, look_up)
    return [str(entry[4][0]) for entry in found]


class EgressClient:
    """Calls targets that users named."""

    def __init__(
        self, *, allow_private: bool = False, allowed: Allowed = NOTHING_ELSE, timeout_s: float = 15.0,
        resolve: Resolve = resolve, tls: ssl.SSLContext | None = None, max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:  # fmt: skip
        """What may be called, and how long and how much is taken.

        Args:
            allow_private: As `allowed.private`.
            allowed: Beside https to public addresses.
            timeout_s: Of a call, all of it.
            resolve: Finds a host's addresses.
            tls: Whose certificates are believed; the machine's authorities otherwise.
            max_reply_bytes: Of a reply's body.
        """
        self._allowed = replace(allowed, private=True) if allow_private else allowed
        self._timeout_s, self._resolve, self._most = timeout_s, resolve, max_reply_bytes
        self._client = httpx.AsyncClient(
            verify=tls or True,
            trust_env=False,  # no proxy, no credentials of the machine's
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            # None is kept: httpx would take one for any name on that address, and TLS has verified one name only.
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=0),
        )

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> EgressReply:
        """One POST; the reply's body is read, bounded, and thrown away. A redirect is a reply like others.

        Raises:
            EgressRefusedError: The target is not public, or no URL.
            httpx.HTTPError, TimeoutError, OSError: It cannot be reached, or does not answer within the timeout.
        """
        reply = await self._call("POST", url, content, headers)
        return replace(reply, body=b"")

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> EgressReply:
        """One GET, and the beginning of its body.

        Raises:
            EgressRefusedError: The target is not public, or no URL; or it redirects, or answers in another coding
                than it was asked for, which might unpack to any size.
            httpx.HTTPError, TimeoutError, OSError: As for `post`.
        """
        return await self.call("GET", url, None, headers or {})

    async def call(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> EgressReply:
        """One call of any kind, and the beginning of its answer's body.

        Raises:
            EgressRefusedError, httpx.HTTPError, TimeoutError, OSError: As for `get`.
        """
        reply = await self._call(method, url, content, {**headers, "accept-encoding": "identity"})
        if 300 <= reply.status_code < 400:
            raise EgressRefusedError("it redirects, and redirects are not followed")
        if reply.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise EgressRefusedError("it answers in a coding that it was not asked for")
        return reply

    async def _call(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> EgressReply:
        parts = check_url(url, allowed=self._allowed)
        async with asyncio.timeout(self._timeout_s):
            host = parts.hostname or ""
            address = await self._checked_address(host, port_of(parts))
            # Connected to the address that was checked; the name stays in Host, and in TLS, where it is verified.
            at = f"[{address}]" if ":" in address else address
            target = parts._replace(netloc=f"{at}:{parts.port}" if parts.port else at, fragment="")
            request = self._client.build_request(
                method, target.geturl(), content=content, headers={**headers, "host": parts.netloc},
                extensions={"sni_hostname": host},
            )  # fmt: skip
            response = await self._client.send(request, stream=True)
            body = bytearray()
            try:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > self._most:
                        break
            finally:
                await response.aclose()
            is_cut = len(body) > self._most
            return EgressReply(response.status_code, dict(response.headers), bytes(body[: self._most]), is_cut)

    async def _checked_address(self, host: str, port: int) -> str:
        addresses = await self._resolve(host, port)
        if not addresses:
            raise EgressRefusedError("the host has no address")
        # One that is not public among them is reason enough: the next connection might take that one.
        if not all(self._takes(address, host) for address in addresses):
            raise EgressRefusedError("the host has an address that is not public")
        return addresses[0]

    def _takes(self, text: str, host: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return self._allowed.private
        return self._allowed.takes(address, host=host)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()
