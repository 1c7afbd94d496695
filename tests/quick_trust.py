"""The web's authorities are not loaded: 24 ms of CPU for each client, some thousands of times over.

Nobody here is called by a name that one of them vouches for: real providers are off for the whole suite. What a test
says is to be believed is believed, and nothing else.
"""

import os
import ssl
from typing import Any

import certifi

OF_THE_WEB = {
    certifi.where(),
    ssl.get_default_verify_paths().cafile,
    os.environ.get("SSL_CERT_FILE"),
}
_load = ssl.SSLContext.load_verify_locations


def _load_others(self: ssl.SSLContext, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
    if cafile is None or cafile not in OF_THE_WEB or cadata is not None:
        _load(self, cafile, capath, cadata)


def _load_none(self: ssl.SSLContext) -> None:
    pass


def use() -> None:
    """From now on, in this process."""
    ssl.SSLContext.load_verify_locations = _load_others  # type: ignore[method-assign]
    ssl.SSLContext.set_default_verify_paths = _load_none  # type: ignore[method-assign]
