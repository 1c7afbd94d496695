"""Ports that stay the same over restarts."""

import json
import secrets
import socket
from pathlib import Path

from embedded.errors import EmbeddedError
from transport.ports import holder

HOST = "127.0.0.1"
# Below those that systems give to outgoing connections: one of these could have it by the time that it is needed.
FIRST, LAST, TRIES = 20_000, 32_000, 100
_given: set[int] = set()  # to whom has not come to listen there yet, perhaps


def is_free(port: int) -> bool:
    """True if one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody has at the moment, and that was not given to anyone here before."""
    for _ in range(TRIES):
        port = FIRST + secrets.randbelow(LAST - FIRST)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        given: int = probe.getsockname()[1]
        return given


class KeptPorts:
    """The ports of a home: chosen once, written down, the same ever after."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}

    def get(self, name: str, *, preferred: int = 0) -> int:
        """The port of a part.

        Raises:
            EmbeddedError: It was chosen earlier, and somebody else has it now.
        """
        port = self._ports.get(name)
        if port is None:
            port = preferred if preferred and is_free(preferred) else free_port()
            self._ports[name] = port
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._ports, indent=1))
        elif not is_free(port):
            raise EmbeddedError(
                f"port {port}, which {name} uses here, is held by {holder(port)}: end that, or remove the line "
                f'"{name}" from {self._file} to have another port chosen'
            )
        return port
