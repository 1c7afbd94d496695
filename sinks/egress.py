"""The one way out to addresses that users name: resolved once, refused unless public, connected to as checked.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; `ipaddress.is_global` is not used, since before
CPython 3.13 it lets multicast and NAT64 through.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import SplitResult, urlsplit

import httpx

CONNECT_TIMEOUT_S = 5.0
MAX_REPLY_BYTES = 64 * 1024
MAX_URL_CHARS = 2048
# The loop's own threads are few: a handful of nameservers that hang would keep everybody waiting for a name.
_RESOLVING = ThreadPoolExecutor(max_workers=64, thread_name_prefix="resolve")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CLOSED_V4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
_CLOSED_V6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments, Teredo and benchmarking among them
        "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
    )
]  # fmt: skip

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class EgressRefusedError(Exception):
    """The target is one that we do not call; the message says why."""


@dataclass(frozen=True, slots=True)
class EgressReply:
    """What came back, as far as anybody needs it."""

    status_code: int
    headers: Mapping[str, str]


def is_public(address: Address) -> bool:
    """True if it is somebody's address on the Internet, in no special range and no disguise of one."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    # ::ffff:0:0/96, 64:ff9b::/96 and ::/96 lie outside 2000::/3, with loopback, link-local, ULA and multicast.
    return address.scope_id is None and address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def check_url(url: str, *, allow_private: bool) -> SplitResult:
    """What can be told of a target before anything is resolved.

    Returns:
        Its parts; the host as ASCII, as nameservers and TLS know it, and no user.

    Raises:
        EgressRefusedError: With a sentence for whoever named it.
    """
    if len(url) > MAX_URL_CHARS or any(ord(char) <= 32 or ord(char) == 127 for char in url) or "\\" in url:
        raise EgressRefusedError("it is not a URL: too long, or with white space, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EgressRefusedError(f"it is not a URL: {error}") from None
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        raise EgressRefusedError("only https is called")
    if not parts.hostname:
        raise EgressRefusedError("it names no host")
    if parts.username is not None or parts.password is not None:
        raise EgressRefusedError("it must not hold a user or password")
    if "%" in parts.netloc:
        raise EgressRefusedError("the host must be a plain name or address")
    host = _ascii(parts.hostname)
    if not allow_private:
        if port not in (None, 443):
            raise EgressRefusedError("only port 443 is called")
        literal = _literal(host)
        if literal is not None and not is_public(literal):
            raise EgressRefusedError("the address is not public")
    bracketed = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=bracketed if port is None else f"{bracketed}:{port}")


def _ascii(host: str) -> str:
    if ":" in host:
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:  # a label that is empty, too long, or of characters that no name has
        raise EgressRefusedError("the host is not a valid name") from None


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:  # decimal, octal, hexadecimal and short forms, as the resolver would understand them
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, by the system's resolver."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVING, look_up)
    return [str(entry[4][0]) for entry in found]


class EgressClient:
    """Posts to targets that users named."""

    def __init__(
        self, *, allow_private: bool = False, timeout_s: float = 15.0, resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """`allow_private`: also http, any port, any address: for tests and closed networks."""
        self._allow_private, self._timeout_s, self._resolve = allow_private, timeout_s, resolve
        self._client = httpx.AsyncClient(
            verify=tls or True,
            trust_env=False,  # no proxy, no credentials of the machine's
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            # None is kept: httpx would take one for any name on that address, and TLS has verified one name only.
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=0),
        )

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> EgressReply:
        """One POST; the reply's body is read up to 64 KiB and thrown away.

        Raises:
            EgressRefusedError: The target is not public, or no URL.
            httpx.HTTPError, TimeoutError, OSError: It cannot be reached, or does not answer within the timeout.
        """
        parts = check_url(url, allow_private=self._allow_private)
        async with asyncio.timeout(self._timeout_s):
            host = parts.hostname or ""
            address = await self._checked_address(host, parts.port or (443 if parts.scheme == "https" else 80))
            # Connected to the address that was checked; the name stays in Host, and in TLS, where it is verified.
            at = f"[{address}]" if ":" in address else address
            target = parts._replace(netloc=f"{at}:{parts.port}" if parts.port else at, fragment="")
            request = self._client.build_request(
                "POST", target.geturl(), content=content, headers={**headers, "host": parts.netloc},
                extensions={"sni_hostname": host},
            )  # fmt: skip
            response = await self._client.send(request, stream=True)
            try:
                read = 0
                async for part in response.aiter_raw():
                    read += len(part)
                    if read > MAX_REPLY_BYTES:
                        break
            finally:
                await response.aclose()
            return EgressReply(response.status_code, dict(response.headers))

    async def _checked_address(self, host: str, port: int) -> str:
        addresses = await self._resolve(host, port)
        if not addresses:
            raise EgressRefusedError("the host has no address")
        # One that is not public among them is reason enough: the next connection might take that one.
        if not self._allow_private and not all(_is_public_text(address) for address in addresses):
            raise EgressRefusedError("the host has an address that is not public")
        return addresses[0]

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _is_public_text(address: str) -> bool:
    try:
        return is_public(ipaddress.ip_address(address))
    except ValueError:
        return False
