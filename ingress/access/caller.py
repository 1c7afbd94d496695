"""Where the call at hand comes from; of what no call is at hand for, nobody knows."""

from contextvars import ContextVar

from starlette.types import Scope

_ADDRESS: ContextVar[str | None] = ContextVar("address", default=None)


def note_caller(scope: Scope) -> None:
    """Remember the address for all that this request does. (uvicorn has put a proxy's word in place, if trusted.)"""
    client = scope.get("client")
    _ADDRESS.set(client[0] if client else None)


def caller_address() -> str | None:
    """The address of the call at hand."""
    return _ADDRESS.get()
