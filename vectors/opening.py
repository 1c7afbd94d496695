"""Opens the vectors of a deployment: a server by its address, or a folder of one's own."""

import fcntl
import ipaddress
import os
import ssl
import warnings
from pathlib import Path
from urllib.parse import urlsplit

from vectors.calls import OwnThread
from vectors.qdrant import WRITE_TIMEOUT_S, QdrantRepository

CONNECTIONS = 32


class VectorsError(Exception):
    """They cannot be opened; the message says what to do."""


def open_server(
    url: str, *, api_key: str | None, cacert: Path | None, namespace: str = "", production: bool = False
) -> QdrantRepository:
    """Qdrant at this address; whether it is there is seen by the first call.

    Args:
        url: http or https; without a port: Qdrant's own, 6333.
        api_key: Goes with each call.
        cacert: Authorities for https, in place of the system's.
        namespace: See `QdrantRepository`.
        production: Refuse what is open to others.

    Raises:
        VectorsError: The address is none, or `production` refuses it.
    """
    if wrong := why_unfit(url, has_key=api_key is not None, production=production):
        raise VectorsError(wrong)
    import httpx
    from qdrant_client import AsyncQdrantClient

    local = is_loopback(url)
    try:
        verify = ssl.create_default_context(cafile=cacert) if url.startswith("https:") else False
    except OSError as error:
        raise VectorsError(f"QDRANT_CACERT={cacert} cannot be read: {error.strerror or error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a key without TLS: `why_unfit` has an opinion on that
        client = AsyncQdrantClient(
            url, api_key=api_key, timeout=int(WRITE_TIMEOUT_S), check_compatibility=False, verify=verify,
            trust_env=not local, limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=30),
        )  # fmt: skip
    return QdrantRepository(client, namespace=namespace)


def open_folder(folder: Path, *, namespace: str = "") -> QdrantRepository:
    """Vectors in a folder that this process alone has, by qdrant-client's local mode: exact, and slow from 20,000 on.

    Raises:
        VectorsError: Another process has it.
    """
    from qdrant_client import AsyncQdrantClient

    lock = _locked(folder)
    thread = OwnThread()

    def close() -> None:
        thread.close()
        os.close(lock)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is slow
            client = thread.call(lambda: AsyncQdrantClient(path=str(folder)))
    except BaseException:
        close()
        raise
    return QdrantRepository(client, namespace=namespace, run=thread.run, close=close, indexes=False)


def _locked(folder: Path) -> int:
    """Ours, for as long as it is open; the client's own lock leaves a file open where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / ".owner", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise VectorsError(
            f"the vectors in {folder} are held by another process, and only one can have them: "
            "run Qdrant and set QDRANT_URL, or run `assistant up`, which does"
        ) from None
    return lock


def why_unfit(url: str, *, has_key: bool, production: bool) -> str | None:
    """Why this address cannot be used, with what to do; None where it can."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "QDRANT_URL must be like https://qdrant.example:6333"
    if parts.username or parts.password:
        return "QDRANT_URL must be without a password: the key goes into QDRANT_API_KEY"
    if not production:
        return None
    if not has_key:
        return (
            "PRODUCTION=true refuses a Qdrant without a key, which is open to all: set QDRANT_API_KEY, there and here"
        )
    if parts.scheme == "http" and not is_loopback(url):
        return "PRODUCTION=true refuses QDRANT_URL over http: documents and the key go readable over the network"
    return None


def is_loopback(url: str) -> bool:
    """The address is this machine's own."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
