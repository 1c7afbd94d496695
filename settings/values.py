"""How values of settings are written: lists, JSON, addresses, names of hosts, keys and secrets."""

import json
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

MIN_SECRET_BYTES = 32
PROVIDERS = ("openai", "gemini", "ollama", "lmstudio", "qwen3vl", "local")  # the last is the one that is always there


def as_list(value: object) -> object:
    """Lists come as JSON, or as words between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [word.strip() for word in value.split(",") if word.strip()]


def as_object(value: object) -> object:
    """As JSON; nothing is an empty one."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.strip() else {}


def by_provider(value: object) -> object:
    """JSON, by `provider` or `provider/model`."""
    value = as_object(value)
    unknown = [name for name in value if name.partition("/")[0] not in PROVIDERS] if isinstance(value, dict) else []
    if unknown:
        raise ValueError(f"names what is no provider: {', '.join(unknown)}; there are: {', '.join(PROVIDERS)}")
    return value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("holds what is no origin: each is like https://app.example, without a path; not *")
    return value


def _hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """As they are compared: small letters, ASCII, without the last dot."""
    hosts = [host.strip("[]").rstrip(".").lower() for host in value]
    if wrong := [host for host in hosts if not host or any(char in host for char in "/@*? ")]:
        raise ValueError(f"must be names or addresses of hosts, each without scheme, port and path: {wrong[0]!r}")
    return tuple(host if ":" in host else host.encode("idna").decode("ascii") for host in hosts)


def _address(value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value


def _fits_a_header(value: SecretStr | None) -> SecretStr | None:
    """With a line's end or a letter that is not ASCII it would fail at each call, and be told of in the failure."""
    if value is None:
        return None
    key = value.get_secret_value().strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("must be printable ASCII without spaces: has it been copied whole?")
    return SecretStr(key) if key else None


def _strong(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    secret = value.get_secret_value()
    looks_parsed = secret.lstrip().startswith(("[", "{", '"', "-----")) or _is_number(secret)
    if len(secret.encode()) < MIN_SECRET_BYTES or looks_parsed:
        raise ValueError(
            f"must be at least {MIN_SECRET_BYTES} random bytes and not JSON or PEM; "
            "make one with: openssl rand -base64 48"
        )
    if len(set(secret)) < 10:
        raise ValueError("is too regular to be random; make one with: openssl rand -base64 48")
    return value


def _is_number(text: str) -> bool:
    """JSON too, and few bits for its length."""
    try:
        float(text)
    except ValueError:
        return False
    return True


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(as_list)]
WordsOrNone = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(as_list)]
Origins = Annotated[Words, AfterValidator(_origins)]
Hosts = Annotated[Words, AfterValidator(_hosts)]
Ports = Annotated[tuple[Annotated[int, Field(ge=1, le=65_535)], ...], NoDecode, BeforeValidator(as_list)]
Address = Annotated[str, AfterValidator(_address)]
ApiKey = Annotated[SecretStr | None, AfterValidator(_fits_a_header)]
StrongSecret = Annotated[SecretStr | None, AfterValidator(_strong)]
