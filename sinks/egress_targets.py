"""Which targets are called that users name: what can be told of a URL, and which addresses are somebody's.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; `ipaddress.is_global` is not used, since before
CPython 3.13 it lets multicast and NAT64 through.
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

MAX_URL_CHARS = 2048
HTTPS, HTTP = 443, 80

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

# What belongs to networks of one's own, where a host that the operator has named may be.
_OWN = [
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]


class EgressRefusedError(Exception):
    """The target is one that we do not call; the message says why."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows beside https to public addresses on port 443.

    Attributes:
        private: Everything: http, any port, any address; for tests and closed networks.
        hosts: These also by http (port 80), and in networks of one's own; not on this machine nor link-local (where
            clouds keep credentials), unless the address itself is named here.
        ports: These on every host, beside 80 and 443.
    """

    private: bool = False
    hosts: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()

    def names(self, host: str) -> bool:
        """The operator has named this host."""
        return host.rstrip(".") in self.hosts

    def takes(self, address: Address, *, host: str) -> bool:
        """This host may be called at this address."""
        if self.private or is_public(address):
            return True
        if not self.names(host):
            return False
        return host == str(address) or any(address in network for network in _OWN)


NOTHING_ELSE = Allowed()


def is_public(address: Address) -> bool:
    """True if it is somebody's address on the Internet, in no special range and no disguise of one."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _CLOSED_V4)
    # ::ffff:0:0/96, 64:ff9b::/96 and ::/96 lie outside 2000::/3, with loopback, link-local, ULA and multicast.
    return address.scope_id is None and address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def check_url(url: str, *, allow_private: bool = False, allowed: Allowed = NOTHING_ELSE) -> SplitResult:
    """What can be told of a target before anything is resolved; `allow_private` is `Allowed(private=True)`.

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
    if parts.scheme not in ("https", "http"):
        raise EgressRefusedError("only https is called")
    if not parts.hostname:
        raise EgressRefusedError("it names no host")
    if parts.username is not None or parts.password is not None:
        raise EgressRefusedError("it must not hold a user or password")
    if "%" in parts.netloc:
        raise EgressRefusedError("the host must be a plain name or address")
    host = _ascii(parts.hostname)
    if not (allow_private or allowed.private):
        if parts.scheme != "https" and not allowed.names(host):
            raise EgressRefusedError("only https is called")
        if port not in (None, HTTPS, HTTP) and port not in allowed.ports:
            more = "".join(f", {one}" for one in sorted(allowed.ports))
            raise EgressRefusedError(f"only the ports {HTTPS} and {HTTP}{more} are called")
        literal = _literal(host)
        if literal is not None and not allowed.takes(literal, host=host):
            raise EgressRefusedError("the address is not public")
    bracketed = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=bracketed if port is None else f"{bracketed}:{port}")


def port_of(parts: SplitResult) -> int:
    """Where it is called."""
    return parts.port or (HTTPS if parts.scheme == "https" else HTTP)


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
