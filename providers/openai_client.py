"""The `openai` SDK's client as we use it: what is the same for every question is made once.

Its errors, its authorisation and its wire stay its own. Of a call's CPU that goes into the SDK, half went into looking
at what there could be and is not: query parameters, files, retries, other ways of signing in.
"""

from collections.abc import Mapping
from typing import Any

import httpx2
from openai import AsyncOpenAI, Omit

from providers.sdk_http import make_sdk_client

# What the SDK tells of our machine with every call is left out: nobody needs it, and it costs a fifth of a call's CPU.
TOLD_BY_THE_SDK = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async", "Retry-Count",
                   "Read-Timeout")  # fmt: skip
HEADERS: Mapping[str, str | Omit] = {
    **{f"X-Stainless-{name}": Omit() for name in TOLD_BY_THE_SDK},
    "X-Stainless-Raw-Response": "stream",  # to the SDK itself: the body is not read before we do
}
CLOSING: Mapping[str, str | Omit] = {**HEADERS, "Connection": "close"}


# As the SDK's own `create` has it. What is not said is copied from the SDK's defaults, deeply and for each call.
OPTIONS: Mapping[str, Any] = {"security": {"bearer_auth": True}, "max_retries": 0, "params": {}}
OF_ONE_BODY = ("content-length", "host")


class Client(AsyncOpenAI):
    """With a key that does not change while it is under way, and no other way of signing in."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._known: dict[tuple[Any, ...], httpx2.Headers] = {}

    @property
    def user_agent(self) -> str:
        """The SDK's: by it, not by a name of ours, servers know whom they talk to."""
        return f"{AsyncOpenAI.__name__}/Python {self._version}"

    def _build_request(self, options: Any, *, retries_taken: int = 0) -> Any:
        """As the SDK does, which is asked once for each kind of question; its Azure client does this its own way, too.

        All but body and time is the same from then on.
        """
        if options.content is None:
            return super()._build_request(options, retries_taken=retries_taken)
        headers = self._known.get(key := (options.url, self.api_key, *options.headers.items()))
        if headers is None:
            request = super()._build_request(options, retries_taken=retries_taken)
            of_all = [(name, value) for name, value in request.headers.multi_items() if name not in OF_ONE_BODY]
            self._known[key] = httpx2.Headers(of_all)
            return request
        return self._client.build_request(
            "POST", options.url, content=options.content, headers=headers, timeout=options.timeout
        )


def make_client(*, base_url: str, api_key: str, connections: int, trust_env: bool = True) -> AsyncOpenAI:
    """A client for `OpenAICompatibleProvider`.

    Args:
        base_url: Ends in `/v1`.
        api_key: Sent as a bearer token.
        connections: How many at most; more callers wait.
        trust_env: Proxies of the environment are used.
    """
    http = make_sdk_client(base_url=base_url, connections=connections, trust_env=trust_env)
    return Client(base_url=base_url, api_key=api_key, max_retries=0, http_client=http)
