"""Which addresses an answer from documents may name: one that a model was talked into carries out what it has read.

An image is fetched as soon as it is shown, and a link says something else than where it leads; so both stay only where
their host is allowed. An address that stands in the text as it is, stays as well where the documents or the question
have the same one: then nothing was put into it.
"""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

BARE = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"'`\[\]{}|\\^»”]*", re.IGNORECASE)
BEGINNINGS = ("https://", "http://", "ftp://", "www.")
_AFTER = ".,;:!?)"
_PLAIN_TAG = re.compile(r"</?[A-Za-z][\w-]*\s*/?>|<[^=>]*>")
_AUTOLINK = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]*:[^\s<>]*)>")


class LinkRules:
    """What may stay."""

    def __init__(self, allowed_hosts: Collection[str], known: str = "") -> None:
        """`allowed_hosts`: and all that are below them; `known`: the texts that the answer is made from."""
        self._allowed = tuple(host.casefold().lstrip(".") for host in allowed_hosts)
        self._known = known

    def leads_to_allowed(self, address: str) -> bool:
        """Of a link or an image."""
        address = address.strip().strip("<>").strip()
        if address.startswith("#"):
            return True
        try:
            parts = urlsplit(address.replace("\\", "/"))
            host = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or host is None:
            return False
        return any(host == allowed or host.endswith(f".{allowed}") for allowed in self._allowed)

    def may_stand(self, address: str) -> bool:
        """Of an address that is told as it is."""
        return address in self._known or self.leads_to_allowed(address if "://" in address else f"https://{address}")

    def bare(self, found: str) -> tuple[str, str]:
        """An address in the text, and what only stands behind it."""
        address = found.rstrip(_AFTER)
        if "(" in address and found[len(address) :].startswith(")"):  # as encyclopaedias have them
            address += ")"
        return address, found[len(address) :]

    def tag(self, tag: str) -> str:
        """What stays of `<...>`."""
        if (link := _AUTOLINK.fullmatch(tag)) is not None:
            return tag if self.may_stand(link.group(1)) else ""
        return tag if _PLAIN_TAG.fullmatch(tag) else ""
