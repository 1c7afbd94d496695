"""Where each setting comes from: the environment, `.env`, or its default. Values of secrets are never shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from settings import Settings

MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting. `shown`: its value, or for a secret whether there is one."""

    name: str
    source: Literal["environment", ".env", "default"]
    shown: str


def origins(settings: Settings, *, environ: Mapping[str, str], env_file: Mapping[str, str | None]) -> list[Origin]:
    """All settings, in the order of the class; the environment wins over `.env`."""
    in_environment, in_file = {name.upper() for name in environ}, {name.upper() for name in env_file}
    found = []
    for field, info in Settings.model_fields.items():
        name = field.upper()
        source: Literal["environment", ".env", "default"] = (
            "environment" if name in in_environment else ".env" if name in in_file else "default"
        )
        is_secret = info.annotation is SecretStr or SecretStr in get_args(info.annotation)
        found.append(Origin(name, source, _shown(getattr(settings, field), is_secret=is_secret)))
    return found


def _shown(value: object, *, is_secret: bool) -> str:
    if is_secret:
        is_set = isinstance(value, SecretStr) and bool(value.get_secret_value())
        return "(set)" if is_set else "(not set)"
    if value is None:
        return "(not set)"
    text = without_credentials(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def without_credentials(url: str) -> str:
    """An address without the user and password that may be in it, and without its query."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
