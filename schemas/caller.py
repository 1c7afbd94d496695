"""Where a call came from: a header that the ingress puts on `job-requested`, for incidents to tell it.

It is believed only beside a job's id that an ingress made (see `accept_job`); whoever has such an id of their own can
at most lie about themselves.
"""

from collections.abc import Sequence
from ipaddress import ip_address

from schemas.envelope import Headers, first_header

ADDRESS_HEADER = "client-address"
MAX_ADDRESS_CHARS = 45  # of an IPv6 address with an IPv4 one in it


def address_headers(address: str | None) -> Headers:
    """As the record carries it."""
    return [] if address is None else [(ADDRESS_HEADER, address.encode())]


def address_in(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """What a record's headers say of it; whether it is an address is asked of the few that it is told of."""
    return first_header(headers, ADDRESS_HEADER)


def as_address(told: str | None) -> str | None:
    """The same where it is an address."""
    if told is None or len(told) > MAX_ADDRESS_CHARS:
        return None
    try:
        return str(ip_address(told))
    except ValueError:
        return None
