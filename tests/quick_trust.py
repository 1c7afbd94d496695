"""The web's authorities are not loaded: 24 ms of CPU for each client, some thousands of times over.

Nobody here is called by a name that one of them vouches for: real providers are off for the whole suite. What a test
says is to be believed is believed, and nothing else.
"""

import os
import ssl
from typing import Any

import certifi

OF_THE_WEB = {certifi.where(), os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")}
OF_THE_SYSTEM = ("/etc/", "/usr/")
_load = ssl.SSLContext.load_verify_locations


def _load_others(self: ssl.SSLContext, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
    if cadata is not None or not all(map(_is_of_the_web, filter(None, (cafile, capath)))):
        _load(self, cafile, capath, cadata)


def _is_of_the_web(path: Any) -> bool:
    return path in OF_THE_WEB or str(path).startswith(OF_THE_SYSTEM)


def _load_none(self: ssl.SSLContext) -> None:
    pass


def use() -> None:
    """From now on, in this process."""
    ssl.SSLContext.load_verify_locations = _load_others  # type: ignore[method-assign]
    ssl.SSLContext.set_default_verify_paths = _load_none  # type: ignore[method-assign]
